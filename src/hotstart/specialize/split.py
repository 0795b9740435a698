"""Split the sizes that were declared into parts, each for one graph and for units of its own.

A trace or a compile takes one path, and assumes conditions on sizes under which that is the path.
Where they do not hold throughout a part, it is split: into the sizes around its hints, which meet
them, and the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotstart._torch.graphs.symbols import Condition, axis_symbol, holds_at
from hotstart.partition.conditions import SCANNED, where_it_holds
from hotstart.partition.zero_and_one import ORDINARY
from hotstart.records.dims import Dim, variants
from hotstart.records.shapes import Interval
from hotstart.specialize.limits import range_error, report_split
from hotstart.specialize.parts import Sizes, Split, VariantPart, further_parts, only_axis

if TYPE_CHECKING:
    import sympy

ALTERNATIONS = 3
"""Largest number of intervals in which a condition holds or fails and still splits an axis."""


@dataclass(frozen=True)
class Declaration:
    """Sizes of a call, as the caller declared them.

    Attributes:
        axes: what is declared.
        examples: the size of each axis in the example call.
        limit: how many further parts a declared variant may be split into.
    """

    axes: Sequence[Dim]
    examples: Sizes
    limit: int

    def parts(self) -> list[VariantPart]:
        """Every declared variant as a part that is all of it."""
        return [
            VariantPart(variant, variant.choices, _near(variant.intervals(), self.examples))
            for variant in variants(self.axes)
        ]


Report = Callable[[Sequence[Split], Sequence[Dim], int], None]


class Splits:
    """The parts of a call's declared sizes, and how they come about.

    Args:
        declaration: the sizes.
        made: the splits so far.
        report: tells the user of each split.

    Attributes:
        made: all splits, in order.
    """

    def __init__(
        self, declaration: Declaration, made: Sequence[Split] = (), report: Report = report_split
    ) -> None:
        self._declaration, self._report = declaration, report
        self.made = list(made)

    def split(self, part: VariantPart, assumed: Sequence[Condition]) -> Split:
        """Split a part at the conditions that hold for some of its sizes only.

        Args:
            part: the part.
            assumed: conditions over axis symbols, which should hold for its hints.

        Raises:
            RangeError: a condition cannot split it, or would make more parts than are allowed.
        """
        made = self._split(part, assumed)
        self._add([made])
        return made

    def split_alike(self, parts: Sequence[VariantPart], condition: Condition) -> list[Split]:
        """Split the first part at a condition, and others of its variant if only intervals change.

        Their compiles would assume the same condition, and parts of the same sizes share a unit. A
        part is left as it is if it would get a new condition, or the limit does not allow its
        split.

        Returns:
            For each part, what becomes of it.

        Raises:
            RangeError: as `split` does for the first part; or the condition holds throughout it.
        """
        first = parts[0]
        made = [self._split(first, [condition])]
        if not made[0].further:
            raise range_error(first, condition, self._declaration.axes)
        for part in parts[1:]:
            alike = part.declared == first.declared
            found = _simple_split(part, condition, self._declaration.examples) if alike else None
            if found is None or not self._allows(found, made):
                found = Split(part, (), (part,))
            made.append(found)
        self._add(made)
        return made

    def origin(self, part: VariantPart) -> Split | None:
        """The split that made a part; None if it is all of a declared variant."""
        return next((made for made in self.made if part in made.into), None)

    def _split(self, part: VariantPart, assumed: Sequence[Condition]) -> Split:
        violated = tuple(c for c in assumed if part.fails(c.expr) is not None)
        if not violated:
            return Split(part, (), (part,))
        made = split_at(part, violated, self._declaration.examples)
        if made is None or not self._allows(made):
            raise range_error(part, violated[0], self._declaration.axes)
        return made

    def _allows(self, split: Split, others: Sequence[Split] = ()) -> bool:
        before = further_parts([*self.made, *others], split.part.declared)
        return split.further + before <= self._declaration.limit

    def _add(self, made: Sequence[Split]) -> None:
        added = [split for split in made if split.further]
        self.made += added
        if added:
            self._report(self.made, self._declaration.axes, self._declaration.limit)


def split_at(part: VariantPart, conditions: Sequence[Condition], examples: Sizes) -> Split | None:
    """Split a part into the sizes around its hints that meet conditions, and the others.

    Where the hints do not meet them, such as 1 if a graph serves all sizes but 1, other sizes take
    their place. Conditions on one axis that hold and fail in few intervals give smaller intervals;
    all others, such as parity or a bound on a product, become a condition on the parts.

    Returns:
        How it is split. None if no sizes meet the conditions, or if it is undecided whether a part
        would be empty.
    """
    import sympy

    exprs = [condition.expr for condition in conditions]
    whole, hints = part, _meeting(part, exprs)
    if hints is None:
        return None
    part = replace(part, hints=hints)
    intervals = part.intervals()
    for expr in exprs:
        axis = only_axis(expr)
        if axis is None or intervals[axis].hi - intervals[axis].lo > SCANNED:
            continue
        runs = where_it_holds(expr, axis_symbol(axis), intervals[axis])
        if _alternations(runs, intervals[axis]) <= ALTERNATIONS:
            (intervals[axis],) = (run for run in runs if part.hints[axis] in run)
    inner = part.within(intervals)
    others = list(_around(part, intervals))
    left = [expr for expr in exprs if inner.fails(expr) is not None]
    if left:
        met = sympy.And(*left)
        inner, others = inner.only(met), [inner.only(sympy.Not(met)), *others]
    into = [inner]
    for other in others:
        hints = _hints(other, examples)
        if hints is None:
            continue
        if not holds_at(other.where, hints):
            return None
        into.append(replace(other, hints=hints))
    return Split(whole, tuple(conditions), tuple(into))


def _meeting(part: VariantPart, exprs: Sequence[sympy.Basic]) -> Sizes | None:
    """The hints of a part, or other sizes of it that meet conditions; None if there are none."""
    import sympy

    if all(holds_at(expr, part.hints) for expr in exprs):
        return part.hints
    found = part.fails(sympy.Not(sympy.And(*exprs)))
    meeting = None if found is None else {**part.hints, **found}
    return meeting if meeting and all(holds_at(expr, meeting) for expr in exprs) else None


def _simple_split(part: VariantPart, condition: Condition, examples: Sizes) -> Split | None:
    """Split a part at a condition by intervals alone; None if the others need a condition, too."""
    import sympy

    expr = condition.expr
    side = expr if holds_at(expr, part.hints) else sympy.Not(expr)
    found = split_at(part, [replace(condition, expr=side)], examples)
    if found is None or any(other.where != part.where for other in found.into):
        return None
    return replace(found, conditions=(condition,)) if found.further else None


def _hints(part: VariantPart, examples: Sizes) -> Sizes | None:
    """Sizes of a part to trace and compile with; None if it has none.

    They need not meet its condition if it is undecided whether any sizes do.
    """
    import sympy

    intervals = part.intervals()
    hints = _near(intervals, examples)
    if holds_at(part.where, hints):
        return hints
    plain = {axis: Interval(min(max(i.lo, ORDINARY), i.hi), i.hi) for axis, i in intervals.items()}
    found: Sizes | None = None
    for tried in (part.within(plain), part):
        found = replace(tried, where=True).fails(sympy.Not(part.where))
        if found is not None and holds_at(part.where, {**hints, **found}):
            break
    return None if found is None else {**hints, **found}


def _near(intervals: Mapping[str, Interval], examples: Sizes) -> dict[str, int]:
    """The example's sizes where they lie in the intervals and are not special, else low ones."""
    return {
        axis: examples[axis]
        if examples[axis] in interval and examples[axis] >= ORDINARY
        else min(interval.hi, max(interval.lo, ORDINARY))
        for axis, interval in intervals.items()
    }


def _around(part: VariantPart, inner: Mapping[str, Interval]) -> Iterator[VariantPart]:
    """The sizes of a part that lie outside of intervals within it, as parts without overlap."""
    sides = part.intervals()
    for axis, (low, high) in ((axis, (i.lo, i.hi)) for axis, i in inner.items()):
        whole = sides[axis]
        for lo, hi in ((whole.lo, low - 1), (high + 1, whole.hi)):
            if lo <= hi:
                yield part.within({**sides, axis: Interval(lo, hi)})
        sides[axis] = Interval(low, high)


def _alternations(runs: Sequence[Interval], whole: Interval) -> int:
    """Count the intervals in which a condition holds or fails."""
    inside = [run for run in runs if run.lo > whole.lo]
    touches_end = bool(runs) and runs[-1].hi == whole.hi
    return len(runs) + len(inside) + (not touches_end)
