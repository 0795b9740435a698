"""Parts of declared variants, and the splits they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotstart._torch.graphs.symbols import Condition, axis_symbol, python_source
from hotstart.partition.conditions import counterexample
from hotstart.records.shapes import Choice, Interval, Variant

if TYPE_CHECKING:
    import sympy

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class VariantPart:
    """Some of the sizes of a declared variant.

    Attributes:
        declared: the variant, as the caller declared it.
        choices: the range or size of each axis.
        hints: those of its sizes that are traced with, and that units are tuned for.
        where: a condition, over axis symbols, that all of its sizes meet.
        sides: of branches on what tensors hold, which bring a call here: see `Variant`.
    """

    declared: Variant
    choices: tuple[tuple[str, Choice], ...]
    hints: Sizes
    where: sympy.Basic | bool = True
    sides: tuple[bool, ...] = ()

    @property
    def variant(self) -> Variant:
        """The part as a variant of a program."""
        where = "" if self.where is True else python_source(self.where)
        return Variant(self.choices, where, self.sides)

    @property
    def fixed(self) -> dict[str, int]:
        """The axes that have one size."""
        return {axis: choice for axis, choice in self.choices if isinstance(choice, int)}

    def intervals(self) -> dict[str, Interval]:
        """Every axis as an interval."""
        return Variant(self.choices).intervals()

    def within(self, intervals: Mapping[str, Interval]) -> VariantPart:
        """The sizes of this part that lie in intervals, each of them within the part's own."""
        choices = tuple((axis, _choice(intervals[axis])) for axis, _ in self.choices)
        return replace(self, choices=choices)

    def only(self, condition: sympy.Basic) -> VariantPart:
        """The sizes of this part that meet a condition."""
        import sympy

        return replace(self, where=sympy.And(self.where, condition))

    def fails(self, condition: sympy.Basic | bool) -> dict[str, int] | None:
        """Sizes of this part for which a condition does not hold; None if there are none."""
        import sympy

        intervals = {axis_symbol(axis): each for axis, each in self.intervals().items()}
        implied = condition if self.where is True else sympy.Or(sympy.Not(self.where), condition)
        found = counterexample(implied, intervals)
        return None if found is None else {str(symbol): size for symbol, size in found.items()}


@dataclass(frozen=True)
class Split:
    """A part that one graph or one unit could not serve.

    Attributes:
        part: the part.
        conditions: what was assumed of its sizes, and holds for some only.
        into: the parts that were made of it, the one that meets the conditions first; the part
            itself where all of its sizes meet them.
    """

    part: VariantPart
    conditions: tuple[Condition, ...]
    into: tuple[VariantPart, ...]

    @property
    def further(self) -> int:
        """The number of parts more than before."""
        return len(self.into) - 1


def further_parts(splits: Sequence[Split], declared: Variant) -> int:
    """Count the parts that a declared variant has besides the first."""
    return sum(made.further for made in splits if made.part.declared == declared)


def only_axis(condition: sympy.Basic) -> str | None:
    """The axis a condition is about, if it is one."""
    involved = [str(symbol) for symbol in condition.free_symbols]
    return involved[0] if len(involved) == 1 else None


def _choice(interval: Interval) -> Choice:
    return interval.lo if interval.lo == interval.hi else interval
