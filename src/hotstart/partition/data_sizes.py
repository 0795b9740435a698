"""Find values of data-dependent numbers that pass all checks of a graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hotstart._torch.graphs.symbols import as_function
from hotstart.capture.captured import Captured

_TRIED = (4, 2, 3, 5, 6, 8, 1, 0)
"""Values to try for a number, besides its bounds, the sizes of axes, and what an equation gives."""

_MOST = 2_000
"""Evaluations of checks after which a search gives up."""

Sizes = Mapping[str, int]


class _NotFound(Exception):
    """No values were found that meet all checks."""


@dataclass(frozen=True)
class _Number:
    name: str
    low: int
    high: int
    whole: bool


@dataclass(frozen=True)
class _Check:
    """A check of a graph; an equation has `off`, by how much its sides differ."""

    names: tuple[str, ...]
    holds: Callable[..., Any]
    off: Callable[..., Any] | None

    def met(self, sizes: Sizes) -> bool:
        """Tell whether it holds; one that mentions what is not known yet does."""
        if any(name not in sizes for name in self.names):
            return True
        try:
            return bool(self.holds(*(sizes[name] for name in self.names)))
        except ZeroDivisionError:  # such as a remainder of nothing
            return False

    def solved(self, name: str, sizes: Sizes) -> list[int]:
        """The value that an equation, linear in a number, gives it; none if others are unknown."""
        if self.off is None or any(n not in sizes for n in self.names if n != name):
            return []
        try:
            at = [self.off(*({**sizes, name: v}[n] for n in self.names)) for v in (0, 1)]
        except ZeroDivisionError:
            return []
        step = at[1] - at[0]
        return [-at[0] // step] if step and at[0] % step == 0 else []


class NumberSizes:
    """Finds values of the numbers of a graph.

    Numbers that checks mention together are found together.

    Args:
        captured: the graph.
    """

    def __init__(self, captured: Captured) -> None:
        self._numbers = {
            n.name: _Number(n.name, n.low or 0, n.high, bool(n.symbol.is_integer))
            for n in captured.numbers
        }
        self._checks = [_check(expr) for expr in captured.guarded] if self._numbers else []
        self._groups = [
            (group, [check for check in self._checks if not group.keys().isdisjoint(check.names)])
            for group in self._together()
        ]
        self._found: dict[tuple[Any, ...], dict[str, int] | None] = {}

    def at(self, sizes: Sizes) -> dict[str, int] | None:
        """Complete sizes by values of all numbers; None if none are found that meet every check.

        Args:
            sizes: of axes, and of those numbers that are given.
        """
        axes = {name: size for name, size in sizes.items() if name not in self._numbers}
        complete = dict(sizes)
        for index, (group, checks) in enumerate(self._groups):
            given = {name: sizes[name] for name in group if name in sizes}
            key = (index, *sorted(axes.items()), *sorted(given.items()))
            if key not in self._found:
                waiting = [number for name, number in group.items() if name not in given]
                self._found[key] = _search({**axes, **given}, waiting, checks)
            values = self._found[key]
            if values is None:
                return None
            complete |= values
        return complete

    def _together(self) -> list[dict[str, _Number]]:
        """Group the numbers, so that no check mentions numbers of two groups."""
        groups = [{name: number} for name, number in self._numbers.items()]
        for check in self._checks:
            met = [group for group in groups if not group.keys().isdisjoint(check.names)]
            if len(met) > 1:
                groups = [group for group in groups if group not in met]
                groups.append(dict(itertools.chain.from_iterable(group.items() for group in met)))
        return groups


def _check(expr: Any) -> _Check:
    import sympy

    involved = sorted(expr.free_symbols, key=str)
    equal = isinstance(expr, sympy.Eq)
    off = as_function(expr.lhs - expr.rhs, involved) if equal else None
    return _Check(tuple(map(str, involved)), as_function(expr, involved), off)


def _search(
    known: Sizes, waiting: Sequence[_Number], checks: Sequence[_Check]
) -> dict[str, int] | None:
    """Find values of some numbers; None if a bounded search finds none."""
    if not all(check.met(known) for check in checks):
        return None
    left = _MOST

    def completed(sizes: dict[str, int], waiting: Sequence[_Number]) -> dict[str, int] | None:
        nonlocal left
        if not waiting:
            return sizes
        number, *others = waiting
        about = [check for check in checks if number.name in check.names]
        for value in _values(number, sizes, about):
            left -= 1
            tried = {**sizes, number.name: value}
            if all(check.met(tried) for check in about):
                found = completed(tried, others)
                if found is not None:
                    return found
            if left < 0:
                raise _NotFound
        return None

    try:
        return completed(dict(known), waiting)
    except _NotFound:
        return None


def _values(number: _Number, known: Sizes, checks: Iterable[_Check]) -> list[int]:
    if not number.whole:
        return [1]
    solved = [value for check in checks for value in check.solved(number.name, known)]
    ends = (number.low, number.low + 1, number.high, number.high - 1)
    tried = dict.fromkeys((*solved, *_TRIED, *known.values(), *ends))
    return [value for value in tried if number.low <= value <= number.high]
