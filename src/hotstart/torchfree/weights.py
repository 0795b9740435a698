"""Prepared weights of a file, mapped, as tensors of libtorch's."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import threading
from collections.abc import Sequence
from typing import Any

from hotstart.artifact import weights_file
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.weights_file import PAGE, Stored
from hotstart.errors import CorruptArtifact
from hotstart.records.artifact import Artifact, CompiledUnit
from hotstart.torchfree.library import Libtorch

_WORDS = PAGE // 8


class Weights:
    """The tensors of a file that `Program.save_weights` wrote, by number.

    Args:
        torch: the library.
        source: the file.

    Raises:
        ArtifactError: it cannot be read.
        CorruptArtifact: header or table are not what was written.
    """

    def __init__(self, torch: Libtorch, source: OpenFile) -> None:
        self._torch = torch
        self.where = source.name
        opened = weights_file.read(source)
        self.table = opened.table
        self._begin = opened.begin
        self._memory: mmap.mmap = source.mapped()
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + opened.begin
        self._handles: dict[int, int] = {}
        self._made = {(made.preparation, made.weights): made.results for made in opened.table.made}
        self._found = ""
        self._checking: threading.Thread | None = None

    def require_fit(self, artifact: Artifact) -> None:
        """See that the weights were prepared for a program and this machine.

        The memory is checked from now on, beside what the caller goes on with.

        Raises:
            IncompatibleArtifact: with every part that differs.
        """
        weights_file.require_fit(self.where, self.table, artifact)
        self._checking = threading.Thread(target=self._check, name="hotstart-check")
        self._checking.start()

    def _check(self) -> None:
        rows = self.table.memory // PAGE
        sums = self._torch.sums_of_rows(self._address, rows, _WORDS) if rows else b""
        self._found = hashlib.sha256(sums).hexdigest()

    def require_whole(self) -> None:
        """See that the memory is what was written.

        Raises:
            CorruptArtifact: it is not.
        """
        if self._checking is not None:
            self._checking.join()
        if self._found != self.table.sums:
            raise weights_file.damaged(self.where, f"{self.table.sums} of its sums", self._found)

    def of_unit(self, unit: CompiledUnit, weights: Sequence[int]) -> list[int | None]:
        """List what a unit runs with in place of its weights, all by number."""
        kept = weights if unit.kept is None else [weights[number] for number in unit.kept]
        found: list[int | None] = list(kept)
        for preparation in unit.preparations:
            taken = tuple(weights[number] for number in preparation.weights)
            found += self._made[preparation.code.filename, taken]
        return found

    def handle(self, number: int) -> int:
        """Return the handle of a tensor, which stays this object's."""
        if number not in self._handles:
            try:
                self._handles[number] = self._over(number, self.table.tensors[number])
            except RuntimeError as error:
                expected = f"tensor {number} as hotstart writes it"
                raise CorruptArtifact(self.where, "table", expected, str(error)) from error
        return self._handles[number]

    def _over(self, number: int, stored: Stored) -> int:
        if stored.stretch is None:
            raise RuntimeError(f"only what was packed of tensor {number} is here")
        stretch = self.table.stretches[stored.stretch]
        layout = None if stored.layout is None else self.table.layouts[stored.layout]
        place = self._address + stretch.offset + stored.offset
        return self._torch.over(place, stored.shape, stored.stride, stored.dtype, layout)

    def viewed(self, number: int, *view: Any) -> int:
        """Number a view of a tensor as a further one."""
        further = len(self.table.tensors) + len(self._handles)
        self._handles[further] = self._torch.viewed(self.handle(number), *view)
        return further
