"""Checks of the sizes of axes, and the choice of a variant."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from hotstart.errors import ContractError
from hotstart.records.contract import Contract, TensorSpec
from hotstart.records.shapes import Variant
from hotstart.runtime.code.identifiers import Scope
from hotstart.runtime.entry.entry_check import Check, Found
from hotstart.runtime.entry.refusal_words import not_served, other_size


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

    def check(self, spec: TensorSpec, dim: int, axis: str, shape: str) -> Check:
        """Check a dimension of a variable's shape: an axis has one size, which may be served."""
        size = f"{shape}[{dim}]"
        if axis not in self.variables:
            variable = self.variables[axis] = self._scope.new(axis)
            served = [variant.intervals()[axis] for variant in self._variants]
            low, high = min(i.lo for i in served), max(i.hi for i in served)
            return Check(_within(f"({variable} := {size})", low, high), self.not_served)
        variable = self.variables[axis]
        return Check(
            f"{size} == {variable}",
            lambda found: other_size(
                self._contract, spec.path, dim, axis, found[shape][dim], found[variable]
            ),
        )

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
