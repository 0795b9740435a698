"""Trace every side of the branches on what tensors hold: a graph for each way through forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

MOST_WAYS = 24
"""Most ways through forward; a loop that contents end has no last one."""

Sides = tuple[bool, ...]
"""The sides of branches, from the first on."""


class OneWay(Protocol):
    """A graph of one way through forward."""

    @property
    def sides(self) -> Sides:
        """The sides of all branches on the way."""
        ...


GraphT = TypeVar("GraphT", bound=OneWay)


class TooManyWays(Exception):
    """Branches leave more ways through forward than are traced."""


def trace_ways(trace: Callable[[Sides], GraphT]) -> dict[Sides, GraphT]:
    """Trace all ways through forward.

    Args:
        trace: traces one, given the sides of the first branches, and chooses those of others.

    Returns:
        The graphs, each by the sides that it was traced for; the first by none. A call that leaves
        a graph at a branch goes on with the graph of the sides that it has taken.

    Raises:
        TooManyWays: there are more than `MOST_WAYS`.
    """
    graphs: dict[Sides, GraphT] = {}
    waiting: list[Sides] = [()]
    while waiting:
        given = waiting.pop()
        graphs[given] = trace(given)
        waiting += _others(given, graphs[given].sides)
        if len(graphs) + len(waiting) > MOST_WAYS:
            raise TooManyWays
    return graphs


def _others(given: Sides, taken: Sides) -> Iterator[Sides]:
    """Yield the sides that lead away from a way, at each branch beyond those given."""
    for number in range(len(given), len(taken)):
        yield (*taken[:number], not taken[number])
