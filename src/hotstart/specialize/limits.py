"""Log what splits declared variants, refuse splits without end, and word their error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hotstart._torch.graphs.symbols import Condition, axis_symbol, readable
from hotstart.errors import RangeError
from hotstart.partition.advice import Domain, advise, advise_several
from hotstart.partition.conditions import count_values
from hotstart.records.dims import Dim
from hotstart.records.shapes import Interval
from hotstart.specialize.parts import Split, VariantPart, further_parts, only_axis

if TYPE_CHECKING:
    import sympy

log = logging.getLogger("hotstart")

MANY = 4
"""Parts of a declared variant from which on splits are warned of."""

ENDLESS = 4
"""Once this many values of one number have each caused a split, we expect one split for every value
it can have."""


def report_split(splits: Sequence[Split], axes: Sequence[Dim], limit: int) -> None:
    """Log the last split of a call; warn where the declared variant has come to many parts.

    Args:
        splits: how the parts of the call came about.
        axes: the dynamic dimensions as they are declared.
        limit: how many further parts a declared variant may be split into.

    Raises:
        RangeError: a number that is computed from a size is assumed to be one value after
            another, and has more values than parts are allowed. The first splits show that all
            of them are coming, and each would be traced or compiled before the limit is met.
    """
    last = splits[-1]
    alike = [made for made in splits if made.part.declared == last.part.declared]
    _refuse_endless(alike, axes, limit)
    parts = 1 + further_parts(splits, last.part.declared)
    for condition in last.conditions:
        log.log(
            logging.WARNING if parts > MANY else logging.INFO,
            "%s is served in %d parts so far: %s holds for some sizes of %s only (%s). "
            "Each part is traced or compiled for itself. For fewer, change that line, declare "
            "less (Dim(ranges=..., sizes=...)), or leave the axis at one size; "
            "Options(splits=...) bounds them.",
            last.part.declared.name,
            parts,
            readable(condition.expr),
            ", ".join(sorted(map(str, condition.expr.free_symbols))),
            condition.source or "no source line is known",
        )


def _refuse_endless(splits: Sequence[Split], axes: Sequence[Dim], limit: int) -> None:
    import sympy

    found: dict[sympy.Basic, set[sympy.Basic]] = {}
    for made in splits:
        for condition in made.conditions:
            expr, axis = condition.expr, only_axis(condition.expr)
            if not isinstance(expr, sympy.Eq) or not expr.rhs.is_Integer:
                continue
            values = found.setdefault(expr.lhs, set())
            values.add(expr.rhs)
            if len(values) < ENDLESS or axis is None:
                continue
            whole = replace(made.part, choices=made.part.declared.choices, where=True)
            count = count_values(expr.lhs, axis_symbol(axis), whole.intervals()[axis])
            if count > limit + 1:
                raise range_error(whole, condition, axes, count)


def range_error(
    part: VariantPart,
    condition: Condition,
    axes: Sequence[Dim],
    parts: int = 0,
    advise: Callable[[str, sympy.Basic, Domain], str] = advise,
) -> RangeError:
    """The error of a condition that does not hold throughout a part, with what to declare.

    Args:
        part: the sizes.
        condition: what holds for some of them only.
        axes: the dynamic dimensions as they are declared.
        parts: how many parts such conditions would make, where that is known.
        advise: says what to declare for an axis, given the condition and the axis's sizes.
    """
    declared = {dim.name: str(dim) for dim in axes}
    expr = condition.expr
    intervals = part.intervals()
    about = sorted(map(str, expr.free_symbols)) or [*intervals]
    domain = Domain(
        part={axis: intervals[axis] for axis in about},
        declared={dim.name: Interval(dim.min, dim.max) for dim in axes if dim.name in about},
        hints=part.hints,
    )
    if len(about) == 1:
        advice = advise(about[0], expr, domain)
    else:
        advice = advise_several(expr, domain)
    if parts:
        advice += f"; all sizes would take {parts} parts, which Options(splits={parts - 1}) allows"
    return RangeError(
        axis=", ".join(about),
        declared=" and ".join(declared[axis] for axis in about),
        condition=readable(expr),
        source=condition.source,
        advice=advice,
        expr=expr,
    )
