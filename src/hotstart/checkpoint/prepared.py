"""Map prepared weights of a file, for the program that they were made for."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Collection, Sequence
from typing import Any

import torch

from hotstart import _torch
from hotstart._torch.opaque import opaque_over
from hotstart.artifact import weights_file
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.weights_file import PAGE, Stored, Table
from hotstart.dtypes import dtype_of
from hotstart.errors import CorruptArtifact, ModelMismatch
from hotstart.model import contents
from hotstart.records.artifact import Artifact
from hotstart.records.shapes import spanned
from hotstart.runtime.prepared import Prepared
from hotstart.runtime.released import Released

_WORDS = PAGE // 8


class PreparedWeights:
    """A file that `Program.save_weights` wrote, mapped copy-on-write: a `Checkpoint`.

    It has the tensors that a program reads as they are, those that were made of the others, and for
    the others stand-ins without values.

    Args:
        file: its path.

    Raises:
        ArtifactError: it cannot be read.
        CorruptArtifact: header or table are not what was written.
        IncompatibleArtifact: it has another format.
    """

    shared = False
    whole = True

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.where = os.fspath(file)
        with OpenFile(self.where) as source:
            opened = weights_file.read(source)
            self._memory = source.mapped()
        self._table: Table = opened.table
        self._begin = opened.begin
        self._stretches: dict[int, torch.Tensor] = {}
        self._made: dict[int, torch.Tensor] = {}
        self._names = {number: name for name, number in reversed(opened.table.weights.items())}
        self._shapes: dict[Any, torch.Tensor] = {}  # of tensors without values
        self._found = ""
        self._checking: threading.Thread | None = None

    def require_fit(self, artifact: Artifact) -> None:
        """See that the weights were prepared for a program and this machine.

        The memory is checked from now on, while tensors are made of it that nobody computes with.

        Raises:
            IncompatibleArtifact: with every part that differs.
        """
        weights_file.require_fit(self.where, self._table, artifact)
        self._checking = threading.Thread(target=self._check, name="hotstart-check")
        self._checking.start()

    def _check(self) -> None:
        self._found = sums_digest(self._memory, self._begin)

    def require_whole(self) -> None:
        """See that the memory is what was written.

        Raises:
            CorruptArtifact: it is not.
        """
        if self._checking is not None:
            self._checking.join()
        if not self._found:  # not begun, or it failed
            self._check()
        if self._found != self._table.sums:
            raise weights_file.damaged(self.where, f"{self._table.sums} of its sums", self._found)

    def names(self) -> Collection[str]:
        """List the names of all tensors."""
        return self._table.weights.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._table.tensors[self._table.weights[name]].shape

    def tensor(self, name: str) -> torch.Tensor:
        """Map a tensor; return a stand-in for one of which only what was packed of it is here."""
        return self._numbered(self._table.weights[name])

    def same(self, name: str, other: str) -> bool:
        """Tell whether two names are of one tensor."""
        return self._table.weights[name] == self._table.weights[other]

    def discard(self, name: str) -> None:
        """Do nothing: pages that nobody reads go by themselves, since the file has them."""

    def made(self) -> Prepared:
        """Return what preparations made.

        Raises:
            CorruptArtifact: the table says what cannot be.
        """
        with torch.inference_mode(False), _torch.apart():
            return Prepared.mapped(
                (
                    each.preparation,
                    [self._numbered(number) for number in each.weights],
                    [None if n is None else self._numbered(n) for n in each.results],
                    each.bytes,
                )
                for each in self._table.made
            )

    def _numbered(self, number: int) -> torch.Tensor:
        if number not in self._made:
            try:
                self._made[number] = self._new(number, self._table.tensors[number])
            except (ValueError, RuntimeError) as error:
                expected = f"tensor {number} as hotstart writes it"
                raise CorruptArtifact(self.where, "table", expected, f"{error}") from error
        return self._made[number]

    def _new(self, number: int, stored: Stored) -> torch.Tensor:
        dtype = dtype_of(stored.dtype)
        if stored.stretch is None:
            name = self._names.get(number, "a weight")
            shape = (stored.shape, stored.stride, dtype)
            if shape not in self._shapes:
                self._shapes[shape] = torch.empty_strided(*shape[:2], dtype=dtype, device="meta")
            return Released.in_place_of(self._shapes[shape], name, self._no_values)
        memory = self._stretch(stored.stretch)
        if stored.layout is not None:
            return opaque_over(memory, stored.shape, dtype, self._table.layouts[stored.layout])
        size = spanned(stored.shape, stored.stride) * dtype.itemsize
        if stored.offset + size > memory.numel():
            raise ValueError(f"{size} bytes at {stored.offset} of {memory.numel()}")
        if size != memory.numel():
            memory = memory[stored.offset : stored.offset + size]
        flat = memory.view(dtype)
        return flat.as_strided(stored.shape, stored.stride, flat.storage_offset())

    def _stretch(self, number: int) -> torch.Tensor:
        """The bytes of a stretch; tensors in one stretch share its storage, as they did."""
        if number not in self._stretches:
            stretch = self._table.stretches[number]
            if stretch.size:
                made = torch.frombuffer(
                    self._memory,
                    dtype=torch.uint8,
                    count=stretch.size,
                    offset=self._begin + stretch.offset,
                )
            else:
                made = torch.empty(0, dtype=torch.uint8, device="cpu")
            self._stretches[number] = made
        return self._stretches[number]

    def _no_values(self, name: str) -> ModelMismatch:
        return ModelMismatch(
            [(name, "values", "only what was packed of them")],
            f"the file {self.where}",
            "Load the program with the original weights to read them.",
        )


def sums_digest(memory: mmap.mmap | memoryview, begin: int) -> str:
    """Digest the sums of the pages of a memory, as `Table.sums` says.

    Args:
        memory: bytes that can be written to.
        begin: where the pages begin.
    """
    count = (len(memory) - begin) // 8
    if not count:
        return hashlib.sha256().hexdigest()
    words = torch.frombuffer(memory, dtype=torch.int64, count=count, offset=begin)
    sums = words.view(-1, _WORDS).sum(1)
    return hashlib.sha256(contents(sums) or b"").hexdigest()


def page_sums(parts: Sequence[memoryview]) -> str:
    """Compute `sums_digest` of parts that follow each other, of whole pages together."""
    found = hashlib.sha256()
    rest = bytearray()
    for part in parts:
        taken = min(-len(rest) % PAGE, len(part)) if rest else 0
        rest += part[:taken]
        if len(rest) == PAGE:
            found.update(_sums(memoryview(rest)))
            rest = bytearray()
        whole = (len(part) - taken) // PAGE * PAGE
        if whole:
            found.update(_sums(part[taken : taken + whole]))
        rest += part[taken + whole :]
    return found.hexdigest()


def _sums(pages: memoryview) -> bytes:
    return contents(torch.frombuffer(pages, dtype=torch.int64).view(-1, _WORDS).sum(1)) or b""
