"""Decide whether a condition that tracing put on axes holds for all sizes of some axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hotstart._torch.graphs.symbols import as_function, holds_within
from hotstart.records.shapes import Interval

if TYPE_CHECKING:
    import sympy

ENUMERATED = 1 << 12
"""Combinations of sizes up to which each is tried."""

HALVINGS = 1 << 10
"""Halvings of intervals after which a condition counts as unproven."""

SCANNED = 1 << 18
"""How many sizes are tried to find out where a condition holds."""


def counterexample(
    condition: sympy.Basic, intervals: Mapping[sympy.Symbol, Interval]
) -> dict[sympy.Symbol, int] | None:
    """Sizes in `intervals` for which `condition` does not hold; None if there are none.

    Interval arithmetic decides most conditions at once. Intervals in which it does not are halved,
    and small ones are tried point by point, so the answer is a proof either way. Intervals that are
    undecided after `HALVINGS` count as a counterexample: sizes without a proof are not served.
    """
    import sympy

    if condition in (True, sympy.true):
        return None
    involved = sorted(condition.free_symbols, key=str)
    holds = _test_of(condition, involved)
    left = [tuple(intervals[symbol] for symbol in involved)]
    for _ in range(HALVINGS):
        if not left:
            return None
        here = left.pop()
        verdict = holds_within(
            condition, {s: (i.lo, i.hi) for s, i in zip(involved, here, strict=True)}
        )
        if verdict is True:
            continue
        if verdict is False:
            return {symbol: i.lo for symbol, i in zip(involved, here, strict=True)}
        points = math.prod(interval.hi - interval.lo + 1 for interval in here)
        if points > ENUMERATED:
            left += _halves(here)
            continue
        for sizes in itertools.product(*(range(i.lo, i.hi + 1) for i in here)):
            if not holds(*sizes):
                return dict(zip(involved, sizes, strict=True))
    return {symbol: intervals[symbol].lo for symbol in involved} if left else None


def _test_of(condition: sympy.Basic, symbols: Sequence[sympy.Symbol]) -> Callable[..., bool]:
    """Make a function that tests a condition at sizes; a division by 0 counts as false."""
    test = as_function(condition, symbols)

    def holds(*sizes: int) -> bool:
        try:
            return bool(test(*sizes))
        except ZeroDivisionError:
            return False

    return holds


def _halves(here: tuple[Interval, ...]) -> list[tuple[Interval, ...]]:
    """Intervals cut in two across the longest."""
    longest = max(range(len(here)), key=lambda i: here[i].hi - here[i].lo)
    low, high = here[longest].lo, here[longest].hi
    middle = (low + high) // 2
    halves = (Interval(low, middle), Interval(middle + 1, high))
    return [(*here[:longest], half, *here[longest + 1 :]) for half in halves]


def where_it_holds(
    condition: sympy.Basic, symbol: sympy.Symbol, interval: Interval
) -> list[Interval]:
    """The parts of `interval` in which a condition on one symbol holds."""
    holds = _test_of(condition, [symbol])
    runs: list[Interval] = []
    for size in range(interval.lo, interval.hi + 1):
        if not holds(size):
            continue
        if runs and runs[-1].hi == size - 1:
            runs[-1] = Interval(runs[-1].lo, size)
        else:
            runs.append(Interval(size, size))
    return runs


def count_values(number: sympy.Expr, symbol: sympy.Symbol, interval: Interval) -> int:
    """Count the values that a number computed from one symbol takes in an interval."""
    value = as_function(number, [symbol])
    tried = range(interval.lo, min(interval.hi, interval.lo + SCANNED) + 1)
    return len({value(size) for size in tried})
