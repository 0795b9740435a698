"""Collect the axes of an example call from the dimensions that are declared."""

from __future__ import annotations

from typing import NamedTuple

from hotstart.errors import OptionsError
from hotstart.records.dims import DerivedDim, Dim


class _Place(NamedTuple):
    """A dimension of a tensor of the example, with the size that it has there."""

    path: str
    dim: int
    size: int

    def __str__(self) -> str:
        return f"{self.path}: dimension {self.dim} of the example is {self.size}"


class ExampleAxes:
    """The axes of an example call, dimension by dimension.

    Attributes:
        declared: each axis, by name, in order of first use.
        sizes: the size that each has in the example, as far as a dimension has told it.
    """

    def __init__(self) -> None:
        self.declared: dict[str, Dim] = {}
        self.sizes: dict[str, int] = {}
        self._sums: list[tuple[_Place, DerivedDim]] = []

    def add(self, path: str, dim: int, size: int, declared: DerivedDim) -> None:
        """Add a dimension of a tensor.

        Raises:
            OptionsError: it contradicts another dimension, or has a size that is not declared.
        """
        place = _Place(path, dim, size)
        if declared.min < 0:
            raise OptionsError(f"{path}: {declared} is {declared.min} at least, takes 0 or more")
        for axis, _ in declared.terms:
            known = self.declared.setdefault(axis.name, axis)
            if known != axis:
                raise OptionsError(
                    f"Dim {axis.name!r} is declared twice with different bounds: {known} and {axis}"
                )
        if declared.is_sum:
            self._sums.append((place, declared))
        else:
            self._solve(place, declared)

    def _solve(self, place: _Place, declared: DerivedDim) -> None:
        """Note the size of the only axis that a dimension follows from."""
        ((axis, _),) = declared.terms
        size = declared.derived.solved(place.size)
        if declared.derived.at({axis.name: size}) != place.size:
            raise OptionsError(f"{place}, takes {declared} for a whole number {axis.name!r}")
        of = "" if declared.is_plain else f", so that {axis.name!r} in {declared} is {size}"
        if not axis.serves(size):
            raise OptionsError(f"{place}{of}, outside Dim {axis.name!r}, which serves {axis}")
        known = self.sizes.setdefault(axis.name, size)
        if known != size:
            raise OptionsError(f"{place}{of}, but axis {axis.name!r} is {known} elsewhere in it")

    def complete(self) -> None:
        """See that every axis has a size, and sums of axes theirs.

        Raises:
            OptionsError: an axis is used in sums only, or a sum is another in the example.
        """
        for place, declared in self._sums:
            unknown = [axis.name for axis, _ in declared.terms if axis.name not in self.sizes]
            if unknown:
                raise OptionsError(
                    f"{place}, declared as {declared}: no other dimension tells {unknown[0]!r} "
                    f"alone. Declare one that follows from {unknown[0]!r} only"
                )
            size = declared.derived.at(self.sizes)
            if size != place.size:
                raise OptionsError(f"{place}, takes {size}, which {declared} is in it")
