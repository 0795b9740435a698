"""Find tensors that share memory, where a call writes to some. Imports no torch.

Compiled code takes what it reads to be elsewhere than what it writes to, unless that was otherwise
when it was compiled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from hotstart.records.artifact import WeightSpec
from hotstart.records.guards import Change
from hotstart.records.shapes import may_overlap

Meeting = Callable[[Sequence[Any], Collection[int]], tuple[int, str] | None]
"""Finds an argument, by number, and the name of a weight that share memory which a call writes to,
given the arguments and the numbers of those that are written to; None if there are none."""

Span = tuple[Any, Any]
"""Where something begins in memory and where it ends, in whatever order memory has."""


class Memory(ABC):
    """Finds where tensors lie, and which of them share memory."""

    @staticmethod
    @abstractmethod
    def holds(tensor: Any, /) -> bool:
        """Tell whether a tensor has elements, and memory for them."""

    @staticmethod
    @abstractmethod
    def around(tensor: Any, /) -> Span:
        """Return a span that a tensor's own lies in, and that nothing apart from it meets."""

    @staticmethod
    @abstractmethod
    def span(tensor: Any, /) -> Span:
        """Return where a tensor that has memory begins and ends."""

    def overlap(self, tensors: Sequence[Any], written: Collection[int]) -> tuple[int, ...]:
        """Two tensors whose surroundings meet, by number, the first written to; empty without."""
        if are_apart(map(self.around, tensors)):
            return ()
        around = {n: self.around(t) for n, t in enumerate(tensors) if self.holds(t)}
        for number in written:
            for other in around:
                if number in around and number != other and _meet(around[number], around[other]):
                    return number, other
        return ()

    def pairs_that_meet(
        self, tensors: Sequence[Any], written: Collection[int]
    ) -> set[tuple[int, int]]:
        """The pairs of tensors, by number, one of them written to, whose spans meet."""
        found: set[tuple[int, int]] = set()
        if not written:
            return found
        spans = self.spans(dict(enumerate(tensors)))
        for place, (_, end, number) in enumerate(spans):
            for start, _, other in spans[place + 1 :]:
                if start >= end:
                    break
                if number in written or other in written:
                    found.add((min(number, other), max(number, other)))
        return found

    def spans(self, tensors: Mapping[int, Any]) -> list[tuple[Any, Any, int]]:
        """List the spans of tensors that have memory, each with the tensor's number, in order."""
        return sorted((*self.span(t), number) for number, t in tensors.items() if self.holds(t))

    def overlaps_of(
        self, specs: Sequence[WeightSpec], tensors: Sequence[Any]
    ) -> list[tuple[str, ...]]:
        """For each weight the names of later ones that share memory with it, one being written.

        Args:
            specs: what the weights are, and whether calls write to them.
            tensors: the weights, by slot.
        """
        found: list[list[str]] = [[] for _ in specs]
        written = [slot for slot, spec in enumerate(specs) if spec.mutated]
        for first, second in sorted(self.pairs_that_meet(tensors, written)):
            found[first].append(specs[second].name)
        return [tuple(names) for names in found]

    def misplaced(self, specs: Sequence[WeightSpec], tensors: Sequence[Any]) -> list[Change]:
        """List weights that share memory where they did not when compiled, or the other way."""
        apart, shared = "memory of its own, since calls write there", "memory that {} lies in, too"
        problems: list[Change] = []
        for spec, now in zip(specs, self.overlaps_of(specs, tensors), strict=True):
            problems += [
                (spec.name, apart, shared.format(n)) for n in now if n not in spec.overlaps
            ]
            problems += [
                (spec.name, f"{shared.format(n)}, since calls write there", "memory of its own")
                for n in spec.overlaps
                if n not in now
            ]
        return problems


def elements_are_apart(tensor: Any) -> bool:
    """Tell whether no two elements of a tensor share memory."""
    return not may_overlap(tensor.shape, tensor.stride())


def are_apart(spans: Iterable[Span]) -> bool:
    """Tell whether no two spans meet."""
    return all(end <= begin for (_, end), (begin, _) in pairwise(sorted(spans)))


def _meet(one: Span, other: Span) -> bool:
    return bool(one[0] < other[1] and other[0] < one[1])


class WeightsInMemory:
    """The places in memory of a program's weights.

    Args:
        memory: finds them.
        specs: what the weights are.
        tensors: the weights, by slot.
    """

    def __init__(self, memory: Memory, specs: Sequence[WeightSpec], tensors: Sequence[Any]) -> None:
        self._memory = memory
        self._specs = specs
        self._tensors = tensors

    def meeting(self, arguments: Sequence[Any], written: Collection[int]) -> tuple[int, str] | None:
        """An argument and a weight that share memory which is written to, as `Meeting` says."""
        for number, argument in enumerate(arguments):
            looked_at = self._all if number in written else self._written
            slot = looked_at.meeting(argument)
            if slot is not None:
                return number, self._specs[slot].name
        return None

    @cached_property
    def _all(self) -> _Spans:
        return _Spans(self._memory, dict(enumerate(self._tensors)))

    @cached_property
    def _written(self) -> _Spans:
        """Those that calls write to."""
        written = {n: self._tensors[n] for n, spec in enumerate(self._specs) if spec.mutated}
        return _Spans(self._memory, written)


class _Spans:
    """The places in memory of tensors, by number, to be looked up."""

    def __init__(self, memory: Memory, tensors: Mapping[int, Any]) -> None:
        self._memory = memory
        self._around = memory.around
        self._spans = memory.spans(tensors)
        self._begins = [begin for begin, _, _ in self._spans]
        self._ends = list(accumulate((end for _, end, _ in self._spans), max))

    def meeting(self, tensor: Any) -> int | None:
        """The number of a tensor that this one shares memory with; None if there is none."""
        begin, end = self._around(tensor)  # which is cheaper than its span
        last = bisect_left(self._begins, end)
        if last == 0 or self._ends[last - 1] <= begin or not self._memory.holds(tensor):
            return None
        span = self._memory.span(tensor)
        for start, stop, number in self._spans[:last]:
            if _meet(span, (start, stop)):
                return number
        return None
