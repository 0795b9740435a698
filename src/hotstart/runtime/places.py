"""Which tensors lie in the same memory, where a call writes to some of them.

Compiled code takes what it reads to be elsewhere than what it writes to, unless that was otherwise
when it was compiled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise

import torch

from hotstart.records.artifact import WeightSpec
from hotstart.records.guards import Change
from hotstart.records.shapes import may_overlap, spanned
from hotstart.runtime import served

Meeting = Callable[[Sequence[torch.Tensor], Collection[int]], tuple[int, str] | None]
"""Finds an argument, by number, and the name of a weight that share memory which a call writes to,
given the arguments and the numbers of those that are written to; None if there are none."""


Origin = Callable[[torch.Tensor], tuple[int, int]]
"""Gives a space of addresses, and the address in it at which the storage of a tensor begins."""


def overlap(tensors: Sequence[torch.Tensor], written: Sequence[int]) -> tuple[int, ...]:
    """Two tensors whose storages meet, by number, the first of them written to; empty without.

    One memory may have several storages, as what `torch.from_numpy` makes of parts of an array.
    """
    if are_apart(tensors):
        return ()
    for number in written:
        for other, tensor in enumerate(tensors):
            if other != number and _storages_meet(tensors[number], tensor):
                return number, other
    return ()


def elements_are_apart(tensor: torch.Tensor) -> bool:
    """Tell whether no two elements of a tensor share memory."""
    return not may_overlap(tensor.shape, tensor.stride())


def are_apart(tensors: Sequence[torch.Tensor]) -> bool:
    """Tell whether no two storages of tensors meet."""
    storages = sorted(map(_storage, tensors))
    return all(end <= begin for (_, end), (begin, _) in pairwise(storages))


def in_process(tensor: torch.Tensor) -> tuple[int, int]:
    """Say where the storage of a tensor begins: the `Origin` of tensors that have memory."""
    return 0, tensor.untyped_storage().data_ptr()


def pairs_that_meet(
    tensors: Sequence[torch.Tensor],
    written: Collection[int],
    origin: Origin = in_process,
) -> set[tuple[int, int]]:
    """The pairs of tensors, by number, one of them written to, whose spans of memory meet."""
    found: set[tuple[int, int]] = set()
    if not written:
        return found
    spaces: dict[int, list[tuple[int, int, int]]] = {}
    for number, tensor in enumerate(tensors):
        if _has_memory(tensor):
            space, begin = origin(tensor)
            spaces.setdefault(space, []).append((*_span(tensor, begin), number))
    for spans in map(sorted, spaces.values()):
        for place, (_, end, number) in enumerate(spans):
            for start, _, other in spans[place + 1 :]:
                if start >= end:
                    break
                if number in written or other in written:
                    found.add((min(number, other), max(number, other)))
    return found


class WeightsInMemory:
    """The places in memory of a program's weights.

    Args:
        specs: what the weights are.
        tensors: the weights, by slot.
    """

    def __init__(self, specs: Sequence[WeightSpec], tensors: Sequence[torch.Tensor]) -> None:
        self._specs = specs
        self._tensors = tensors

    def meeting(
        self, arguments: Sequence[torch.Tensor], written: Collection[int]
    ) -> tuple[int, str] | None:
        """An argument and a weight that share memory which is written to, as `Meeting` says."""
        for number, argument in enumerate(arguments):
            looked_at = self._all if number in written else self._written
            slot = looked_at.meeting(argument)
            if slot is not None:
                return number, self._specs[slot].name
        return None

    @cached_property
    def _all(self) -> _Spans:
        return _Spans(dict(enumerate(self._tensors)))

    @cached_property
    def _written(self) -> _Spans:
        """Those that calls write to."""
        return _Spans({n: self._tensors[n] for n, spec in enumerate(self._specs) if spec.mutated})


class _Spans:
    """The places in memory of tensors, by number, to be looked up."""

    def __init__(self, tensors: Mapping[int, torch.Tensor]) -> None:
        self._spans = sorted(
            (*_span(tensor, in_process(tensor)[1]), number)
            for number, tensor in tensors.items()
            if _has_memory(tensor)
        )
        self._begins = [begin for begin, _, _ in self._spans]
        self._ends = list(accumulate((end for _, end, _ in self._spans), max))

    def meeting(self, tensor: torch.Tensor) -> int | None:
        """The number of a tensor that this one shares memory with; None if there is none."""
        begin, end = _storage(tensor)  # which is cheaper than its span
        last = bisect_left(self._begins, end)
        if last == 0 or self._ends[last - 1] <= begin or not _has_memory(tensor):
            return None
        begin, end = _span(tensor, begin)
        for start, stop, number in self._spans[:last]:
            if start < end and begin < stop:
                return number
        return None


def overlaps_of(
    specs: Sequence[WeightSpec],
    tensors: Sequence[torch.Tensor],
    origin: Origin = in_process,
) -> list[tuple[str, ...]]:
    """For each weight the names of later ones that share memory with it, one of which is written.

    Args:
        specs: what the weights are, and whether calls write to them.
        tensors: the weights, by slot.
        origin: says where the storage of a tensor begins.
    """
    found: list[list[str]] = [[] for _ in specs]
    written = [slot for slot, spec in enumerate(specs) if spec.mutated]
    for first, second in sorted(pairs_that_meet(tensors, written, origin)):
        found[first].append(specs[second].name)
    return [tuple(names) for names in found]


def misplaced(specs: Sequence[WeightSpec], tensors: Sequence[torch.Tensor]) -> list[Change]:
    """List the weights that share memory where they did not when compiled, or the other way."""
    if not any(spec.mutated for spec in specs):
        return []
    return served.misplaced(specs, overlaps_of(specs, tensors))


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses at which a tensor's storage begins and ends."""
    storage = tensor.untyped_storage()
    begin = storage.data_ptr()
    return begin, begin + storage.nbytes()


def _storages_meet(left: torch.Tensor, right: torch.Tensor) -> bool:
    if not (_has_memory(left) and _has_memory(right)):
        return False
    (begin, end), (other_begin, other_end) = _storage(left), _storage(right)
    return begin < other_end and other_begin < end


def _span(tensor: torch.Tensor, begin: int) -> tuple[int, int]:
    """The addresses at which a tensor begins and ends, given that of its storage."""
    first = int(tensor.storage_offset())
    past = first + int(spanned(tensor.shape, tensor.stride()))
    return begin + first * tensor.dtype.itemsize, begin + past * tensor.dtype.itemsize


def _has_memory(tensor: torch.Tensor) -> bool:
    return tensor.device.type != "meta" and tensor.numel() > 0
