"""Find values of numbers that depend on data which meet all that a graph checks of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hotstart import _torch
from hotstart.capture.captured import Captured
from hotstart.capture.numbers import DataNumber

_TRIED = (4, 2, 3, 5, 6, 8, 1, 0)
"""Values to try for a number, besides its bounds and the sizes of axes."""

_MOST = 20_000
"""Checks are computed so often before a search gives up."""


class _Check(NamedTuple):
    names: tuple[str, ...]
    holds: Callable[..., Any]


class NumberSizes:
    """Finds values of the numbers of a graph.

    Args:
        captured: the graph.
    """

    def __init__(self, captured: Captured) -> None:
        self._numbers = captured.numbers
        self._checks = [_check(expr) for expr in captured.guarded] if captured.numbers else []

    def at(self, sizes: Mapping[str, int]) -> dict[str, int] | None:
        """Complete sizes by values of all numbers; None if none are found that meet every check.

        Args:
            sizes: of axes, and of those numbers that are given.
        """
        left = [0]
        waiting = [number for number in self._numbers if number.name not in sizes]
        if not self._holds(dict(sizes), self._checks, left):
            return None
        return self._search(dict(sizes), waiting, left)

    def _search(
        self, known: dict[str, int], waiting: Sequence[DataNumber], tried: list[int]
    ) -> dict[str, int] | None:
        if not waiting:
            return known
        number, *others = waiting
        about = [check for check in self._checks if number.name in check.names]
        for value in _values(number, known):
            sizes = {**known, number.name: value}
            if not self._holds(sizes, about, tried):
                continue
            found = self._search(sizes, others, tried)
            if found is not None or tried[0] > _MOST:
                return found
        return None

    @staticmethod
    def _holds(sizes: Mapping[str, int], checks: Sequence[_Check], tried: list[int]) -> bool:
        """Tell whether those checks hold whose numbers are all known."""
        tried[0] += len(checks)
        ready = (check for check in checks if all(name in sizes for name in check.names))
        return all(check.holds(*(sizes[name] for name in check.names)) for check in ready)


def _check(expr: Any) -> _Check:
    involved = sorted(expr.free_symbols, key=str)
    return _Check(tuple(map(str, involved)), _torch.as_function(expr, involved))


def _values(number: DataNumber, known: Mapping[str, int]) -> list[int]:
    if not number.symbol.is_integer:
        return [1]
    low = 0 if number.low is None else number.low
    near = (low, low + 1, number.high, number.high - 1, *known.values())
    sums = (abs(a - b) for a in known.values() for b in known.values())
    return [n for n in dict.fromkeys((*_TRIED, *near, *sums)) if low <= n <= number.high]
