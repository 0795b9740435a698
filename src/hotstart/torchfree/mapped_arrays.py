"""Prepared weights of a file, mapped, as arrays."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from hotstart.artifact.disk import OpenFile
from hotstart.artifact.mapped_weights import MappedWeights, no_values
from hotstart.artifact.weights_file import PAGE, Stored
from hotstart.records.artifact import CompiledUnit
from hotstart.records.report import Packed
from hotstart.records.shapes import spanned
from hotstart.torchfree.arrays import Array
from hotstart.torchfree.contracts import NeedsTorch
from hotstart.torchfree.libtorch import Libtorch, is_known, size_of

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
        raise no_values(self.path, self.where)

    tolist = __array__ = __dlpack__ = _refuse


Weight = Array | Opaque | OnlyPacked
"""A tensor that functions are bound to, or that one is bound to in its place."""


class Weights(MappedWeights[Weight]):
    """The tensors of a file that `Program.save_weights` wrote, as arrays."""

    def __init__(self, source: OpenFile) -> None:
        super().__init__(source)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + self._begin
        self._numbers: dict[int, int] = {}  # by the `id` of tensors
        self._made = {(made.preparation, made.weights): made for made in self.table.made}

    def sums_digest(self, torch: Libtorch) -> str:
        """Digest the sums of the pages of the memory, as `Table.sums` says."""
        rows = self.table.memory // PAGE
        sums = torch.sums_of_rows(self._address, rows, _WORDS) if rows else b""
        return hashlib.sha256(sums).hexdigest()

    def named(self, name: str) -> Weight | None:
        """Find a tensor of the table of weights; None if it is not here."""
        number = self.table.weights.get(name)
        return None if number is None else self.numbered(number)

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
            found += [None if n is None else self.numbered(n) for n in made.results]
        return found

    def packed(self) -> Packed:
        """The record of what was made of weights and is in the file."""
        made = self.table.made
        tensors = sum(number is not None for each in made for number in each.results)
        return Packed(tensors=tensors, mapped=sum(each.bytes for each in made))

    def numbered(self, number: int) -> Weight:
        """Return a tensor of the table; the same one again, which stands for its number."""
        found = super().numbered(number)
        self._numbers[id(found)] = number
        return found

    def _new(self, number: int, stored: Stored) -> Weight:
        """Find a tensor in the memory.

        Raises:
            ValueError: it does not lie in its stretch.
            NeedsTorch: it is of a dtype that arrays do not have.
        """
        if stored.stretch is None:
            return OnlyPacked(self._name(number), self.where, stored.dtype, stored.shape)
        if not is_known(stored.dtype):
            raise NeedsTorch(f"a weight is of {stored.dtype}")
        stretch = self.table.stretches[stored.stretch]
        place = self._address + stretch.offset + stored.offset
        if stored.layout is not None:
            layout = self.table.layouts[stored.layout]
            return Opaque(place, stored.dtype, stored.shape, layout, self)
        size = spanned(stored.shape, stored.stride) * size_of(stored.dtype)
        if stored.offset + size > stretch.size:
            raise ValueError(f"{size} bytes at {stored.offset} of {stretch.size}")
        return Array(place, stored.dtype, stored.shape, stored.stride, self)
