"""Checks of the sizes of axes, and the choice of a variant."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from hotstart.errors import ContractError
from hotstart.records.contract import Contract
from hotstart.records.dims import DerivedSize, Size, as_derived, axes_of
from hotstart.records.shapes import Variant
from hotstart.runtime.code.identifiers import Scope
from hotstart.runtime.entry.entry_check import Check, Found
from hotstart.runtime.entry.refusal_words import not_derived, not_served, other_size


class Place(NamedTuple):
    """A dimension of a tensor argument.

    Attributes:
        path: of the argument.
        dim: the number of the dimension.
        size: what the contract takes there.
        shape: the variable of the argument's shape.
    """

    path: str
    dim: int
    size: Size
    shape: str

    @property
    def source(self) -> str:
        """The expression that reads the size."""
        return f"{self.shape}[{self.dim}]"

    def of(self, found: Found) -> int:
        """The size in a call."""
        size: int = found[self.shape][self.dim]
        return size


class Sizes:
    """The sizes of axes in a call.

    Attributes:
        variables: of each axis that a check has read, by name.
    """

    def __init__(self, contract: Contract, variants: Sequence[Variant], scope: Scope) -> None:
        self.variables: dict[str, str] = {}
        self._contract = contract
        self._variants = variants
        self._scope = scope

    def checks(self, place: Place) -> Iterator[Check]:
        """Check a dimension that one axis tells: the axis has one size, which may be served."""
        (axis,) = axes_of(place.size)
        if axis in self.variables:
            yield self.agrees(place)
            return
        variable = self.variables[axis] = self._scope.new(axis)
        assigned = f"({variable} := {place.source})"
        if isinstance(place.size, DerivedSize):
            assigned = f"({variable} := {place.size.solving(place.source)})"
            again = place.size.written(lambda _: assigned)
            least = f"{place.size.plus} <= " if place.size.plus > 0 else ""
            yield Check(f"{least}{place.source} == {again}", partial(self._not_derived, place))
            assigned = variable
        served = [variant.intervals()[axis] for variant in self._variants]
        low, high = min(i.lo for i in served), max(i.hi for i in served)
        yield Check(_within(assigned, low, high), self.not_served)

    def agrees(self, place: Place) -> Check:
        """Check a dimension whose axes are all known."""
        size = as_derived(place.size).written(self.variables.__getitem__)
        return Check(f"{place.source} == {size}", partial(self._other, place))

    def _other(self, place: Place, found: Found) -> ContractError:
        sizes = {axis: found[self.variables[axis]] for axis in axes_of(place.size)}
        return other_size(self._contract, place.path, place.dim, place.size, place.of(found), sizes)

    def _not_derived(self, place: Place, found: Found) -> ContractError:
        return not_derived(place.path, place.dim, place.size, place.of(found))

    def serves(self, variant: Variant) -> str:
        """The condition under which a variant serves a call whose sizes passed their checks."""
        tests = [
            _within(self.variables[axis], i.lo, i.hi) for axis, i in variant.intervals().items()
        ]
        if variant.where:
            names = dict(self.variables)
            if "math." in variant.where:
                names["math"] = self._scope.refer("math", math)
            name = r"(?<![.\w])[^\W\d]\w*"
            tests.append(f"({re.sub(name, lambda m: names.get(m[0], m[0]), variant.where)})")
        return " and ".join(tests) or "True"

    def served(self) -> Check:
        """Check that a variant serves the sizes; the entry does it by choosing one."""
        return Check(" or ".join(f"({self.serves(v)})" for v in self._variants), self.not_served)

    def not_served(self, found: Found) -> ContractError:
        """Explain that no variant serves the sizes that are known."""
        sizes = {axis: found[name] for axis, name in self.variables.items() if name in found}
        return not_served(self._contract, self._variants, sizes)


def _within(value: str, low: int, high: int) -> str:
    return f"{value} == {low}" if low == high else f"{low} <= {value} <= {high}"
