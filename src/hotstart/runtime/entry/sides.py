"""Run the variant that a call begins with, and those its branches lead to. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hotstart.records.artifact import StitchedCall
from hotstart.records.shapes import Variant
from hotstart.records.sides import OtherSide

Run = Callable[..., Any]


class ByBranches:
    """Finds the variants that calls go on with.

    Args:
        call: has the variants.
        first: the number of the first of them, among all functions.
    """

    def __init__(self, call: StitchedCall, first: int) -> None:
        self._axes = [dim.name for dim in call.contract.axes]
        self._variants: dict[tuple[bool, ...], list[tuple[int, Variant]]] = {}
        for number, stitched in enumerate(call.stitched, first):
            variant = stitched.variant
            self._variants.setdefault(variant.sides, []).append((number, variant))

    def beginning_with(self, runs: Sequence[Run], chosen: int) -> Run:
        """The function of a variant, which goes on with others."""

        def run(*args: Any) -> Any:
            result = runs[chosen](*args)
            while type(result) is OtherSide:
                result = runs[self._serving(result, args)](*args)
            return result

        return run

    def _serving(self, left: OtherSide, args: Sequence[Any]) -> int:
        """The variant for the sizes of a call, which come first among its arguments."""
        sizes = dict(zip(self._axes, args, strict=False))
        return next(
            number
            for number, variant in reversed(self._variants[left.sides])
            if variant.covers(sizes)
        )
