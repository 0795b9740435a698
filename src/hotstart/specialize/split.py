"""Decide which graph serves which sizes: as few graphs as cover everything that was declared.

A trace follows one path through the model's code, and records the conditions on sizes under which
that is the path. Where they do not hold throughout a declared range, the range is split: the part
around the traced size is served by that graph, and what is left over by others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from hotstart import _torch
from hotstart.capture.conditions import (
    SCANNED,
    advise,
    advise_several,
    counterexample,
    values_of,
    where_it_holds,
)
from hotstart.errors import CaptureError, RangeError
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
class Part:
    """Some of the sizes that were declared.

    Attributes:
        choices: the range or size of each axis.
        where: a condition, over axis symbols, that all of its sizes meet.
    """

    choices: tuple[tuple[str, Choice], ...]
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

    def box(self) -> dict[str, Interval]:
        """Every axis as an interval."""
        return Variant(self.choices).box()

    def within(self, box: Mapping[str, Interval]) -> Part:
        """The sizes of this part that lie in a box, which is part of its own."""
        return Part(tuple((axis, _choice(box[axis])) for axis, _ in self.choices), self.where)

    def only(self, condition: sympy.Basic) -> Part:
        """The sizes of this part that meet a condition."""
        import sympy

        return Part(self.choices, sympy.And(self.where, condition))

    def fails(self, condition: sympy.Basic | bool) -> dict[str, int] | None:
        """Sizes of this part for which a condition does not hold; None if there are none."""
        import sympy

        by_symbol = {_torch.axis_symbol(axis): interval for axis, interval in self.box().items()}
        implied = condition if self.where is True else sympy.Or(sympy.Not(self.where), condition)
        found = counterexample(implied, by_symbol)
        return None if found is None else {str(symbol): size for symbol, size in found.items()}


@dataclass(frozen=True)
class Serving:
    """Which graph serves a part of what was declared.

    Attributes:
        part: the sizes it serves.
        graph: which one.
        hints: the sizes it is tuned for.
        declared: the range or size of each axis, as the caller declared them, that it is part of.
    """

    part: Part
    graph: int
    hints: Sizes
    declared: tuple[tuple[str, Choice], ...]


@dataclass(frozen=True)
class Split:
    """A part that one graph or one unit could not serve.

    Attributes:
        declared: the range or size of each axis, as the caller declared them, that it is part of.
        part: the sizes.
        conditions: what was assumed of them, and holds for some only.
        into: the parts that were made of it.
    """

    declared: tuple[tuple[str, Choice], ...]
    part: Part
    conditions: tuple[_torch.Condition, ...]
    into: tuple[Part, ...]


class Traced(Protocol):
    """A graph as far as it matters here."""

    @property
    def assumed(self) -> Sequence[_torch.Condition]:
        """The conditions, over axis symbols, under which it stands for the model."""
        ...


T = TypeVar("T", bound=Traced)


def serve(
    axes: Sequence[Dim], examples: Sizes, limit: int, trace: Callable[[Sizes, Sizes], T]
) -> tuple[list[T], list[Serving], list[Split]]:
    """Trace until every declared size is served.

    Args:
        axes: what is declared.
        examples: the size of each axis in the example call.
        limit: how many further parts the sizes of one declared variant may be split into.
        trace: makes a graph, given the axes to trace at one size and the sizes to trace with.

    Returns:
        The graphs, and what each serves: parts that do not overlap, but where the caller declared
        single sizes within ranges. Then how they came about.

    Raises:
        CaptureError: see `capture`.
        RangeError: a condition on sizes that would need more graphs than `limit` allows.
    """
    graphs: list[T] = []
    servings: list[Serving] = []
    made: list[Split] = []
    for variant in variants(axes):
        splits = 0
        before = len(made)
        waiting: list[tuple[Part, RangeError | None]] = [(Part(variant.choices), None)]
        while waiting:
            part, cause = waiting.pop(0)
            hints = hints_for(part, examples, cause)
            if hints is None:
                continue
            index = _holding(graphs, part, hints)
            if index is None:
                index = len(graphs)
                graphs.append(_traced(trace, part, hints, cause))
            violated = [c for c in graphs[index].assumed if part.fails(c.expr) is not None]
            inner, rest = split(part, [condition.expr for condition in violated], hints)
            if rest or inner is None:
                cause = range_error(axes, part, violated[0])
            if inner is None:
                raise cause or AssertionError
            splits += len(rest)
            if splits > limit:
                raise cause or AssertionError
            if rest:
                made.append(Split(variant.choices, part, tuple(violated), (inner, *rest)))
                refuse_endless(axes, made[before:], limit)
                tell(made[-1], splits + 1)
            servings.append(Serving(inner, index, hints, variant.choices))
            waiting = [*((other, cause) for other in rest), *waiting]
    return graphs, servings, made


def tell(split: Split, parts: int) -> None:
    """Log a split; warn where the declared variant has come to many parts."""
    for condition in split.conditions:
        level = logging.WARNING if parts > MANY else logging.INFO
        log.log(
            level,
            "%s is served in %d parts so far: %s holds for some sizes of %s only (%s). "
            "Each part is traced or compiled for itself. For fewer, change that line, declare less "
            "(Dim(ranges=..., sizes=...)), or leave the axis at one size; Options(splits=...) "
            "bounds them.",
            Variant(split.declared).name,
            parts,
            _torch.python_source(condition.expr),
            ", ".join(sorted(map(str, condition.expr.free_symbols))),
            condition.source or "no source line is known",
        )


def refuse_endless(axes: Sequence[Dim], splits: Sequence[Split], limit: int) -> None:
    """Raise if some number computed from a size is assumed to be one value after another.

    Args:
        axes: what is declared.
        splits: how one declared variant was split so far.
        limit: how many further parts it may be split into.

    Raises:
        RangeError: it has more values than parts are allowed. The first splits show that all of
            them are coming, and each would be traced or compiled before the limit is met.
    """
    import sympy

    found: dict[sympy.Basic, set[sympy.Basic]] = {}
    for split in splits:
        for condition in split.conditions:
            if isinstance(condition.expr, sympy.Eq) and condition.expr.rhs.is_Integer:
                number, axis = condition.expr.lhs, _only_axis(condition.expr)
                values = found.setdefault(number, set())
                values.add(condition.expr.rhs)
                if len(values) < ENDLESS or axis is None:
                    continue
                whole = Part(split.declared)
                count = values_of(number, _torch.axis_symbol(axis), whole.box()[axis])
                if count > limit + 1:
                    raise range_error(axes, whole, condition, count)


def _traced(
    trace: Callable[[Sizes, Sizes], T], part: Part, hints: Sizes, cause: RangeError | None
) -> T:
    try:
        return trace(part.fixed, hints)
    except CaptureError as error:
        if cause is None:
            raise
        raise cause from error  # the model works for other sizes only


def _holding(graphs: Sequence[Traced], part: Part, hints: Sizes) -> int | None:
    """A graph that stands for the model at some sizes; best one that does for the whole part."""
    fitting = [index for index, graph in enumerate(graphs) if _holds(graph, hints)]
    whole = (i for i in fitting if all(part.fails(c.expr) is None for c in graphs[i].assumed))
    return next(whole, next(iter(fitting), None))


def _holds(graph: Traced, sizes: Sizes) -> bool:
    return all(_torch.holds_at(condition.expr, sizes) for condition in graph.assumed)


def split(
    part: Part, conditions: Sequence[sympy.Basic], hints: Sizes
) -> tuple[Part | None, list[Part]]:
    """Split a part into the sizes around `hints` that meet conditions, and the others.

    Conditions on one axis that hold and fail in few intervals give a smaller box; all others, such
    as parity or a bound on a product, are a condition on the part itself.

    Returns:
        The part that meets them, None if `hints` do not, and what is left over.
    """
    import sympy

    violated = [condition for condition in conditions if part.fails(condition) is not None]
    if not violated:
        return part, []
    if not all(_torch.holds_at(condition, hints) for condition in violated):
        return None, []
    box = part.box()
    for condition in violated:
        axis = _only_axis(condition)
        if axis is None or box[axis].hi - box[axis].lo > SCANNED:
            continue
        runs = where_it_holds(condition, _torch.axis_symbol(axis), box[axis])
        if _alternations(runs, box[axis]) <= ALTERNATIONS:
            (box[axis],) = (run for run in runs if hints[axis] in run)
    inner = part.within(box)
    rest = list(_around(part, box))
    left = [condition for condition in violated if inner.fails(condition) is not None]
    if left:
        met = sympy.And(*left)
        return inner.only(met), [inner.only(sympy.Not(met)), *rest]
    return inner, rest


def hints_for(part: Part, examples: Sizes, cause: RangeError | None) -> dict[str, int] | None:
    """Sizes of a part to trace and compile with; None if it has none.

    Raises:
        RangeError: `cause`, if it cannot be decided whether it has any.
    """
    import sympy

    box = part.box()
    hints = {axis: hint_for(box[axis], examples[axis]) for axis in box}
    if _torch.holds_at(part.where, hints):
        return hints
    plain = {axis: Interval(min(max(b.lo, 2), b.hi), b.hi) for axis, b in box.items()}
    undecided = False
    for tried in (part.within(plain), part):
        found = Part(tried.choices).fails(sympy.Not(part.where))
        undecided = found is not None
        if found is not None and _torch.holds_at(part.where, {**hints, **found}):
            return {**hints, **found}
    if undecided and cause is not None:
        raise cause
    return None


def hint_for(interval: Interval, example: int) -> int:
    """A size to trace with: the example's if it lies in the interval and is not a special size."""
    if example in interval and example > 1:
        return example
    return min(interval.hi, max(interval.lo, 2))


def range_error(
    axes: Sequence[Dim], part: Part, condition: _torch.Condition, parts: int = 0
) -> RangeError:
    """The error that says which condition does not hold throughout a part, and what to declare.

    Args:
        axes: what is declared.
        part: the sizes.
        condition: what holds for some of them only.
        parts: how many parts such conditions would make, where that is known.
    """
    declared = {dim.name: str(dim) for dim in axes}
    expr = condition.expr
    sizes = part.fails(expr) or part.box()
    if len(sizes) == 1:
        (axis,) = sizes
        advice = advise(axis, expr, part.box()[axis])
    else:
        advice = advise_several(expr, list(sizes))
    if parts:
        advice += f"; all sizes would take {parts} parts, which Options(splits={parts - 1}) allows"
    return RangeError(
        axis=", ".join(sizes),
        declared=" and ".join(declared[axis] for axis in sizes),
        condition=_torch.python_source(expr),
        source=condition.source,
        advice=advice,
        expr=expr,
    )


def _around(part: Part, box: Mapping[str, Interval]) -> Iterator[Part]:
    """What of a part lies outside a box within it, as boxes that do not overlap."""
    sides = part.box()
    for axis, (low, high) in ((axis, (b.lo, b.hi)) for axis, b in box.items()):
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
