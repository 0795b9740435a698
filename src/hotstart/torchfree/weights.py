"""Prepared weights of a file, mapped, as arrays."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from hotstart.artifact import weights_file
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.weights_file import PAGE, Stored
from hotstart.errors import CorruptArtifact, ModelMismatch
from hotstart.records.artifact import Artifact, CompiledUnit
from hotstart.records.report import Packed
from hotstart.records.shapes import spanned
from hotstart.torchfree.arrays import Array
from hotstart.torchfree.library import Libtorch, is_known, size_of
from hotstart.torchfree.values import NeedsTorch

_WORDS = PAGE // 8


class Opaque(msgspec.Struct, frozen=True, eq=False):
    """A tensor that is packed for oneDNN, which alone reads it.

    Attributes:
        address: of its first byte.
        dtype: its name.
        shape: its sizes.
        layout: how it is packed, as oneDNN describes that.
        keeps: whatever keeps its memory.
    """

    address: int
    dtype: str
    shape: tuple[int, ...]
    layout: bytes
    keeps: Any


class OnlyPacked(msgspec.Struct, frozen=True, eq=False):
    """Stands for a weight of which only what was packed of it is here.

    Attributes:
        path: the weight's name.
        where: the file.
        dtype: its name.
        shape: its sizes.
    """

    path: str
    where: str
    dtype: str
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Released({self.path!r})"

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ModelMismatch(
            [(self.path, "values", "only what was packed of them")],
            f"the file {self.where}",
            "Load the program with the original weights to read them.",
        )

    tolist = __array__ = __dlpack__ = _refuse


Weight = Array | Opaque | OnlyPacked
"""A tensor that functions are bound to, or that one is bound to in its place."""


class Weights:
    """The tensors of a file that `Program.save_weights` wrote, by number.

    Args:
        source: the file.

    Attributes:
        where: its path.
        table: what it says of its tensors.

    Raises:
        ArtifactError: it cannot be read.
        CorruptArtifact: header or table are not what was written.
    """

    def __init__(self, source: OpenFile) -> None:
        self.where = source.name
        opened = weights_file.read(source)
        self.table = opened.table
        self._begin = opened.begin
        self._memory: mmap.mmap = source.mapped()
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + opened.begin
        self._tensors: dict[int, Weight] = {}
        self._numbers: dict[int, int] = {}  # by the `id` of these
        self._names = {number: name for name, number in reversed(opened.table.weights.items())}
        self._made = {(made.preparation, made.weights): made for made in opened.table.made}
        self._found = ""
        self._checking: threading.Thread | None = None

    def require_fit(self, artifact: Artifact) -> None:
        """See that the weights were prepared for a program and this machine.

        Raises:
            IncompatibleArtifact: with every part that differs.
        """
        weights_file.require_fit(self.where, self.table, artifact)

    def begin_check(self, torch: Libtorch) -> None:
        """Begin to check the memory, beside what the caller goes on with."""
        self._checking = threading.Thread(target=self._check, args=(torch,), name="hotstart-check")
        self._checking.start()

    def _check(self, torch: Libtorch) -> None:
        rows = self.table.memory // PAGE
        sums = torch.sums_of_rows(self._address, rows, _WORDS) if rows else b""
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

    def named(self, name: str) -> Weight | None:
        """Find a tensor of the table of weights; None if it is not here."""
        number = self.table.weights.get(name)
        return None if number is None else self._numbered(number)

    def of_unit(self, unit: CompiledUnit, weights: Sequence[Any]) -> list[Weight | None]:
        """List what a unit runs with in place of its weights.

        Raises:
            NeedsTorch: some of it has to be made of the weights at every load.
        """
        found = list(weights if unit.kept is None else [weights[number] for number in unit.kept])
        for preparation in unit.preparations:
            taken = tuple(self._numbers.get(id(weights[n]), -1) for n in preparation.weights)
            made = self._made.get((preparation.code.filename, taken))
            if made is None:
                raise NeedsTorch("weights are prepared at every load, since calls change them")
            found += [None if n is None else self._numbered(n) for n in made.results]
        return found

    def packed(self) -> Packed:
        """The record of what was made of weights and is in the file."""
        made = self.table.made
        tensors = sum(number is not None for each in made for number in each.results)
        return Packed(tensors=tensors, mapped=sum(each.bytes for each in made))

    def _numbered(self, number: int) -> Weight:
        if number not in self._tensors:
            made = self._new(number, self.table.tensors[number])
            self._tensors[number] = made
            self._numbers[id(made)] = number
        return self._tensors[number]

    def _new(self, number: int, stored: Stored) -> Weight:
        """Find a tensor in the memory.

        Raises:
            CorruptArtifact: it does not lie in its stretch.
            NeedsTorch: it is of a dtype that arrays do not have.
        """
        if stored.stretch is None:
            name = self._names.get(number, "a weight")
            return OnlyPacked(name, self.where, stored.dtype, stored.shape)
        if not is_known(stored.dtype):
            raise NeedsTorch(f"a weight is of {stored.dtype}")
        stretch = self.table.stretches[stored.stretch]
        place = self._address + stretch.offset + stored.offset
        if stored.layout is not None:
            layout = self.table.layouts[stored.layout]
            return Opaque(place, stored.dtype, stored.shape, layout, self)
        size = spanned(stored.shape, stored.stride) * size_of(stored.dtype)
        if stored.offset + size > stretch.size:
            expected = f"tensor {number} as hotstart writes it"
            found = f"{size} bytes at {stored.offset} of {stretch.size}"
            raise CorruptArtifact(self.where, "table", expected, found)
        return Array(place, stored.dtype, stored.shape, stored.stride, self)
