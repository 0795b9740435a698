"""What units run with in place of weights: made once, and again when the weights change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch

from hotstart import _torch
from hotstart.records.artifact import Preparation
from hotstart.records.report import Packed
from hotstart.runtime.generated import run_code

Prepare = Callable[[Preparation, Sequence[torch.Tensor]], Sequence[torch.Tensor]]
"""Makes what a preparation makes of some weights."""


class _Made(msgspec.Struct, frozen=True):
    """What a preparation made.

    Attributes:
        weights: of these, where they are in memory; they keep it, so that no other tensor gets it.
        written: notices that they are written to.
        tensors: the results.
        bytes: memory that these take besides the weights'.
    """

    weights: tuple[torch.Tensor, ...]
    written: _torch.VersionWatch
    tensors: Sequence[torch.Tensor]
    bytes: int

    def fits(self, weights: Sequence[torch.Tensor]) -> bool:
        """Whether it was made of the same memory, which holds what it held."""
        pairs = zip(weights, self.weights, strict=True)
        same = all(one.data_ptr() == other.data_ptr() for one, other in pairs)
        return same and self.written.unchanged()


class Prepared:
    """Makes what preparations make of weights, each once, whatever number of units wants it.

    Args:
        pack: whether weights are packed; units run with weights that are not, too.
        counters: as in `Fetched`.
        before: what was made before, which is taken over where the weights are the same.
    """

    def __init__(
        self,
        pack: bool,
        counters: Mapping[int, torch.Tensor] | None = None,
        before: Prepared | None = None,
    ) -> None:
        self._pack = pack
        self._counters = counters or {}
        self._before = before._made if before is not None and before._pack == pack else {}
        self._made: dict[tuple[Any, ...], _Made] = {}
        self._seconds = 0.0

    def __call__(
        self, preparation: Preparation, weights: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """What a preparation makes of weights."""
        key = (preparation.code.filename, *map(id, weights))
        if key not in self._made:
            before = self._before.get(key)
            if before is None or not before.fits(weights):
                before = self._new(preparation, tuple(weights))
            self._made[key] = before
        return self._made[key].tensors

    def _new(self, preparation: Preparation, weights: tuple[torch.Tensor, ...]) -> _Made:
        started = time.perf_counter()
        name = "unpacked" if preparation.packs and not self._pack else "prepare"
        counters = [self._counters[id(w)] for w in weights if id(w) in self._counters]
        written = _torch.VersionWatch((*weights, *counters))
        with _torch.apart():
            tensors = run_code(preparation.code, {})[name](*weights)
        self._seconds += time.perf_counter() - started
        memory = {tensor.untyped_storage().data_ptr() for tensor in weights}
        own = [tensor for tensor in tensors if not _shares(tensor, memory)]
        copied = sum(tensor.numel() * tensor.itemsize for tensor in own)
        return _Made(tuple(w.detach() for w in weights), written, tensors, copied)

    def watching(self, current: Callable[[], bool]) -> Callable[[], bool]:
        """A function that tells whether weights are `current`, and hold what they held.

        It runs in every call.
        """
        copied = [made for made in self._made.values() if made.bytes]
        weights = {id(tensor): tensor for made in copied for tensor in made.written.tensors}
        if not weights:
            return current
        unchanged = _torch.VersionWatch(weights.values()).unchanged
        if not all(made.written.unchanged() for made in copied):
            return _never  # written to while it was read
        return lambda: current() and unchanged()

    def packed(self) -> Packed:
        """What was made."""
        made = self._made.values()
        return Packed(
            self._seconds, sum(each.bytes for each in made), sum(len(each.tensors) for each in made)
        )


def _never() -> bool:
    return False


def _shares(tensor: torch.Tensor, memory: set[int]) -> bool:
    return tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() in memory
