"""Split the sizes that were declared into parts, each for one graph and for units of its own.

A trace or a compile takes one path, and assumes conditions on sizes under which that is the path.
Where they do not hold throughout a part, it is split: into the sizes around its hints, which meet
them, and the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotstart import _torch
from hotstart.capture.conditions import (
    SCANNED,
    advise,
    advise_several,
    counterexample,
    values_of,
    where_it_holds,
)
from hotstart.errors import RangeError
from hotstart.records.shapes import Choice, Dim, Interval, Variant, variants

if TYPE_CHECKING:
    import sympy

log = logging.getLogger("hotstart")

MANY = 4
"""A declared variant that is split into more parts than this is warned of."""

ENDLESS = 4
"""A number that is assumed to be so many values, one after another, is assumed to be all of its."""

ALTERNATIONS = 3
"""A condition that holds and fails in up to so many intervals of an axis splits the axis there."""

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class VariantPart:
    """Some of the sizes of a declared variant.

    Attributes:
        declared: the variant, as the caller declared it.
        choices: the range or size of each axis.
        hints: those of its sizes that are traced with, and that units are tuned for.
        where: a condition, over axis symbols, that all of its sizes meet.
    """

    declared: Variant
    choices: tuple[tuple[str, Choice], ...]
    hints: Sizes
    where: sympy.Basic | bool = True

    @property
    def variant(self) -> Variant:
        """The part as a variant of a program."""
        where = "" if self.where is True else _torch.python_source(self.where)
        return Variant(self.choices, where)

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

        intervals = {_torch.axis_symbol(axis): each for axis, each in self.intervals().items()}
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
    conditions: tuple[_torch.Condition, ...]
    into: tuple[VariantPart, ...]

    @property
    def further(self) -> int:
        """How many parts more there are than before."""
        return len(self.into) - 1


@dataclass(frozen=True)
class Declaration:
    """What a caller declared about the sizes of a call.

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

    def split(
        self, part: VariantPart, assumed: Sequence[_torch.Condition], earlier: Sequence[Split]
    ) -> Split:
        """Split a part at the conditions that hold for some of its sizes only.

        Args:
            part: the part.
            assumed: conditions over axis symbols, which should hold for its hints.
            earlier: how the parts of the call came about.

        Raises:
            RangeError: a condition cannot split it, or would make more parts than are allowed.
        """
        violated = tuple(c for c in assumed if part.fails(c.expr) is not None)
        if not violated:
            return Split(part, (), (part,))
        made = split_at(part, violated, self.examples)
        if made is None or not self._allows(made, earlier):
            raise self.error(part, violated[0])
        return made

    def split_alike(
        self,
        parts: Sequence[VariantPart],
        condition: _torch.Condition,
        earlier: Sequence[Split],
    ) -> list[Split]:
        """Split the first part at a condition, and others of its variant where that is simple.

        What the compile of the first one assumed, theirs would assume too; and parts of the same
        sizes can share a unit. It is simple where no side needs a condition that the part did not.

        Returns:
            For each part, what becomes of it.

        Raises:
            RangeError: as `split` does for the first part.
        """
        first = parts[0]
        made = [self.split(first, [condition], earlier)]
        if not made[0].further:
            raise self.error(first, condition)
        for part in parts[1:]:
            alike = part.declared == first.declared
            found = _simple_split(part, condition, self.examples) if alike else None
            if found is None or not self._allows(found, [*earlier, *made]):
                found = Split(part, (), (part,))
            made.append(found)
        return made

    def _allows(self, split: Split, earlier: Sequence[Split]) -> bool:
        return split.further + _further(earlier, split.part.declared) <= self.limit

    def watch(self, splits: Sequence[Split]) -> None:
        """Log the last split of a call; warn where the declared variant has come to many parts.

        Raises:
            RangeError: a number that is computed from a size is assumed to be one value after
                another, and has more values than parts are allowed. The first splits show that all
                of them are coming, and each would be traced or compiled before the limit is met.
        """
        last = splits[-1]
        self._refuse_endless([made for made in splits if made.part.declared == last.part.declared])
        parts = 1 + _further(splits, last.part.declared)
        for condition in last.conditions:
            log.log(
                logging.WARNING if parts > MANY else logging.INFO,
                "%s is served in %d parts so far: %s holds for some sizes of %s only (%s). "
                "Each part is traced or compiled for itself. For fewer, change that line, declare "
                "less (Dim(ranges=..., sizes=...)), or leave the axis at one size; "
                "Options(splits=...) bounds them.",
                last.part.declared.name,
                parts,
                _torch.python_source(condition.expr),
                ", ".join(sorted(map(str, condition.expr.free_symbols))),
                condition.source or "no source line is known",
            )

    def _refuse_endless(self, splits: Sequence[Split]) -> None:
        import sympy

        found: dict[sympy.Basic, set[sympy.Basic]] = {}
        for made in splits:
            for condition in made.conditions:
                if isinstance(condition.expr, sympy.Eq) and condition.expr.rhs.is_Integer:
                    number, axis = condition.expr.lhs, _only_axis(condition.expr)
                    values = found.setdefault(number, set())
                    values.add(condition.expr.rhs)
                    if len(values) < ENDLESS or axis is None:
                        continue
                    declared = made.part.declared
                    whole = replace(made.part, choices=declared.choices, where=True)
                    count = values_of(number, _torch.axis_symbol(axis), whole.intervals()[axis])
                    if count > self.limit + 1:
                        raise self.error(whole, condition, count)

    def error(self, part: VariantPart, condition: _torch.Condition, parts: int = 0) -> RangeError:
        """The error that says which condition does not hold throughout a part, and what to declare.

        Args:
            part: the sizes.
            condition: what holds for some of them only.
            parts: how many parts such conditions would make, where that is known.
        """
        declared = {dim.name: str(dim) for dim in self.axes}
        expr = condition.expr
        sizes = part.fails(expr) or part.intervals()
        if len(sizes) == 1:
            (axis,) = sizes
            advice = advise(axis, expr, part.intervals()[axis])
        else:
            advice = advise_several(expr, list(sizes))
        if parts:
            advice += (
                f"; all sizes would take {parts} parts, which Options(splits={parts - 1}) allows"
            )
        return RangeError(
            axis=", ".join(sizes),
            declared=" and ".join(declared[axis] for axis in sizes),
            condition=_torch.python_source(expr),
            source=condition.source,
            advice=advice,
            expr=expr,
        )


def _further(splits: Sequence[Split], declared: Variant) -> int:
    """How many parts a declared variant has besides the first."""
    return sum(made.further for made in splits if made.part.declared == declared)


def split_at(
    part: VariantPart, conditions: Sequence[_torch.Condition], examples: Sizes
) -> Split | None:
    """Split a part into the sizes around its hints that meet conditions, and the others.

    Conditions on one axis that hold and fail in few intervals give smaller intervals; all others,
    such as parity or a bound on a product, become a condition on the parts.

    Returns:
        How it is split. None if the hints do not meet the conditions, or if it cannot be decided
        of some sizes whether there are any.
    """
    import sympy

    exprs = [condition.expr for condition in conditions]
    if not all(_torch.holds_at(expr, part.hints) for expr in exprs):
        return None
    intervals = part.intervals()
    for expr in exprs:
        axis = _only_axis(expr)
        if axis is None or intervals[axis].hi - intervals[axis].lo > SCANNED:
            continue
        runs = where_it_holds(expr, _torch.axis_symbol(axis), intervals[axis])
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
        if not _torch.holds_at(other.where, hints):
            return None
        into.append(replace(other, hints=hints))
    return Split(part, tuple(conditions), tuple(into))


def _simple_split(part: VariantPart, condition: _torch.Condition, examples: Sizes) -> Split | None:
    """Split a part where a condition begins or ceases to hold; None where that is not all."""
    import sympy

    expr = condition.expr
    side = expr if _torch.holds_at(expr, part.hints) else sympy.Not(expr)
    found = split_at(part, [replace(condition, expr=side)], examples)
    if found is None or any(other.where != part.where for other in found.into):
        return None
    return replace(found, conditions=(condition,)) if found.further else None


def _hints(part: VariantPart, examples: Sizes) -> Sizes | None:
    """Sizes of a part to trace and compile with; None if it has none.

    They do not meet its condition where it cannot be decided whether any do.
    """
    import sympy

    intervals = part.intervals()
    hints = _near(intervals, examples)
    if _torch.holds_at(part.where, hints):
        return hints
    plain = {axis: Interval(min(max(i.lo, 2), i.hi), i.hi) for axis, i in intervals.items()}
    found: Sizes | None = None
    for tried in (part.within(plain), part):
        found = replace(tried, where=True).fails(sympy.Not(part.where))
        if found is not None and _torch.holds_at(part.where, {**hints, **found}):
            break
    return None if found is None else {**hints, **found}


def _near(intervals: Mapping[str, Interval], examples: Sizes) -> dict[str, int]:
    """The example's sizes where they lie in the intervals and are not special, else low ones."""
    return {
        axis: examples[axis]
        if examples[axis] in interval and examples[axis] > 1
        else min(interval.hi, max(interval.lo, 2))
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


def _only_axis(condition: sympy.Basic) -> str | None:
    """The axis a condition is about, if it is one."""
    involved = [str(symbol) for symbol in condition.free_symbols]
    return involved[0] if len(involved) == 1 else None


def _alternations(runs: Sequence[Interval], whole: Interval) -> int:
    """In how many intervals, all told, a condition holds or fails."""
    inside = [run for run in runs if run.lo > whole.lo]
    touches_end = bool(runs) and runs[-1].hi == whole.hi
    return len(runs) + len(inside) + (not touches_end)


def _choice(interval: Interval) -> Choice:
    return interval.lo if interval.lo == interval.hi else interval
