"""Which tensors lie in the same memory, where a call writes to some of them.

Compiled code takes what it reads to be elsewhere than what it writes to, unless that was otherwise
when it was compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property

import torch

from hotstart.records.artifact import WeightSpec
from hotstart.records.guards import Change
from hotstart.records.shapes import spanned
from hotstart.runtime import served

Meeting = Callable[[Sequence[torch.Tensor], Collection[int]], tuple[int, str] | None]
"""Finds an argument, by number, and the name of a weight that share memory which a call writes to,
given the arguments and the numbers of those that are written to; None if there are none."""


def overlap(tensors: Sequence[torch.Tensor], written: Sequence[int]) -> tuple[int, ...]:
    """Two tensors in one storage, by number, the first of them written to; empty without."""
    if len(set(map(address_of, tensors))) == len(tensors):
        return ()
    for number in written:
        for other, tensor in enumerate(tensors):
            if other != number and _one_storage(tensors[number], tensor):
                return number, other
    return ()


def address_of(tensor: torch.Tensor) -> int:
    """The address of the storage that a tensor is in."""
    return tensor.untyped_storage().data_ptr()


def pairs_that_meet(
    tensors: Sequence[torch.Tensor],
    written: Collection[int],
    storage_of: Callable[[torch.Tensor], int] = address_of,
) -> set[tuple[int, int]]:
    """The pairs of tensors, by number, one of them written to, whose spans of memory meet."""
    found: set[tuple[int, int]] = set()
    if not written:
        return found
    for numbers in _by_storage(tensors, storage_of).values():
        spans = sorted((*_span(tensors[number]), number) for number in numbers)
        for place, (_, end, number) in enumerate(spans):
            for start, _, other in spans[place + 1 :]:
                if start >= end:
                    break
                if number in written or other in written:
                    found.add((min(number, other), max(number, other)))
    return found


class WeightsInMemory:
    """Where the weights of a program lie.

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
            for slot in looked_at.get(address_of(argument), ()):
                if _meet(argument, self._tensors[slot]):
                    return number, self._specs[slot].name
        return None

    @cached_property
    def _all(self) -> Mapping[int, Sequence[int]]:
        """The slots of weights, by the address of their storage."""
        return _by_storage(self._tensors, address_of)

    @cached_property
    def _written(self) -> Mapping[int, Sequence[int]]:
        """The slots of those that calls write to."""
        found = {
            address: [slot for slot in slots if self._specs[slot].mutated]
            for address, slots in self._all.items()
        }
        return {address: slots for address, slots in found.items() if slots}


def overlaps_of(
    specs: Sequence[WeightSpec],
    tensors: Sequence[torch.Tensor],
    storage_of: Callable[[torch.Tensor], int] = address_of,
) -> list[tuple[str, ...]]:
    """For each weight the names of later ones that share memory with it, one of which is written.

    Args:
        specs: what the weights are, and whether calls write to them.
        tensors: the weights, by slot.
        storage_of: identifies the storage that a tensor is in, where there is no address.
    """
    found: list[list[str]] = [[] for _ in specs]
    written = [slot for slot, spec in enumerate(specs) if spec.mutated]
    for first, second in sorted(pairs_that_meet(tensors, written, storage_of)):
        found[first].append(specs[second].name)
    return [tuple(names) for names in found]


def misplaced(specs: Sequence[WeightSpec], tensors: Sequence[torch.Tensor]) -> list[Change]:
    """List the weights that share memory where they did not when compiled, or the other way."""
    if not any(spec.mutated for spec in specs):
        return []
    return served.misplaced(specs, overlaps_of(specs, tensors))


def _by_storage(
    tensors: Sequence[torch.Tensor], storage_of: Callable[[torch.Tensor], int]
) -> dict[int, list[int]]:
    """The numbers of tensors by the storage that they are in; without those of no memory."""
    found: dict[int, list[int]] = {}
    for number, tensor in enumerate(tensors):
        if _has_memory(tensor):
            found.setdefault(storage_of(tensor), []).append(number)
    return found


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a tensor's first byte is in its storage, and where the one after its last is."""
    start = int(tensor.storage_offset())
    end = start + int(spanned(tensor.shape, tensor.stride()))
    return start * tensor.dtype.itemsize, end * tensor.dtype.itemsize


def _meet(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether the spans of two tensors of one storage have bytes in common."""
    (low, high), (other_low, other_high) = _span(left), _span(right)
    return low < other_high and other_low < high


def _has_memory(tensor: torch.Tensor) -> bool:
    return tensor.device.type != "meta" and tensor.numel() > 0


def _one_storage(left: torch.Tensor, right: torch.Tensor) -> bool:
    if not (_has_memory(left) and _has_memory(right)):
        return False
    return address_of(left) == address_of(right)
