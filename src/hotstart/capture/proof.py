"""Decide whether a condition that tracing put on axes holds for every size in a box."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hotstart import _torch
from hotstart.shapes import Interval

if TYPE_CHECKING:
    import sympy

ENUMERATED = 1 << 18
"""Boxes of up to this many points are checked point by point, which is a proof."""


def counterexample(
    condition: sympy.Basic, box: Mapping[sympy.Symbol, Interval]
) -> dict[sympy.Symbol, int] | None:
    """Sizes in `box` for which `condition` does not hold; None if there are none.

    Proved by interval arithmetic where that decides, else by trying every point. A box too large
    to enumerate that interval arithmetic cannot decide counts as a counterexample, at its corner:
    what is not proven is not served.
    """
    import sympy
    from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

    if condition in (True, sympy.true):
        return None
    involved = sorted(condition.free_symbols, key=str)
    ranges = {s: ValueRanges(box[s].lo, box[s].hi) for s in involved}
    with_bounds = bound_sympy(condition, ranges)
    if with_bounds.is_singleton() and with_bounds.lower in (True, sympy.true):
        return None
    points = 1
    for symbol in involved:
        points *= box[symbol].hi - box[symbol].lo + 1
    if points > ENUMERATED:
        return {s: box[s].lo for s in involved}
    holds = _torch.as_function(condition, involved)
    for sizes in itertools.product(*(range(box[s].lo, box[s].hi + 1) for s in involved)):
        if not holds(*sizes):
            return dict(zip(involved, sizes, strict=True))
    return None


def _where_it_holds(condition: sympy.Basic, symbol: sympy.Symbol, interval: Interval) -> list[Interval]:
    """The parts of `interval` in which a condition on one symbol holds; at most a few are listed."""
    holds = _torch.as_function(condition, [symbol])
    sizes = (n for n in range(interval.lo, min(interval.hi, interval.lo + ENUMERATED) + 1) if holds(n))
    parts: list[Interval] = []
    for size in sizes:
        if parts and parts[-1].hi == size - 1:
            parts[-1] = Interval(parts[-1].lo, size)
        elif len(parts) == 4:
            break
        else:
            parts.append(Interval(size, size))
    return parts


def advise(axis: str, condition: sympy.Basic, interval: Interval) -> str:
    """What to declare for an axis, given a condition on it that does not hold throughout."""
    parts = _where_it_holds(condition, _torch.axis_symbol(axis), interval)
    if len(parts) == 1:
        (part,) = parts
        left_out = [*range(interval.lo, part.lo)][:3] + [*range(part.hi + 1, interval.hi + 1)][:3]
        if len(left_out) <= 2:
            return f"give Dim({axis!r}, ..., sizes={left_out}): a variant of its own for each"
        return f"declare {axis!r} as {part}, or split it there with ranges=[...]"
    if not parts:
        return f"no size in {interval} meets the condition; declare other sizes"
    listed = ", ".join(map(str, parts))
    return f"it holds for {listed}, ...; declare the sizes you need as sizes=[...], ranges=[]"
