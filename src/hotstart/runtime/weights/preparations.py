"""Pack weights for units, or prepare them otherwise: once, and again when the weights change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import torch

from hotstart._torch.running.modes import apart
from hotstart._torch.running.watches import VersionWatch
from hotstart.records.artifact import Preparation
from hotstart.records.report import Packed
from hotstart.runtime.code.generated import run_code
from hotstart.runtime.weights.released import Released

Prepare = Callable[[Preparation, Sequence[torch.Tensor]], Sequence[torch.Tensor | None]]
"""Makes what a preparation makes of some weights."""


class PreparedTensors(msgspec.Struct, frozen=True):
    """Result of a preparation.

    Attributes:
        weights: of these, where they are in memory; they keep it, so that no other tensor gets it.
        written: notices that they are written to.
        tensors: the results; None for those that units do without.
        bytes: memory that these take besides the weights'.
        mapped: whether it was made before, and comes from a file.
    """

    weights: tuple[torch.Tensor, ...]
    written: VersionWatch
    tensors: Sequence[torch.Tensor | None]
    bytes: int
    mapped: bool = False

    def fits(self, weights: Sequence[torch.Tensor]) -> bool:
        """Tell whether it was made of the same memory, which holds what it held."""
        pairs = zip(weights, self.weights, strict=True)
        return self.written.unchanged() and all(
            one is other or (type(one) is not Released and one.data_ptr() == other.data_ptr())
            for one, other in pairs
        )

    def with_stand_ins(self, weights: tuple[torch.Tensor, ...]) -> PreparedTensors:
        """Make the same record where some of the weights were released."""
        left = [tensor for tensor in weights if type(tensor) is not Released]
        return PreparedTensors(weights, VersionWatch(left), self.tensors, self.bytes, self.mapped)


class Prepared:
    """Makes what preparations make of weights, each once, whatever number of units wants it.

    Args:
        pack: whether weights are packed; units run with weights that are not, too.
        counters: as in `Fetched`.
        before: what was made before, which is taken over where the weights are the same.

    Attributes:
        packs: as given.
    """

    def __init__(
        self,
        pack: bool,
        counters: Mapping[int, Sequence[torch.Tensor]] | None = None,
        before: Prepared | None = None,
    ) -> None:
        self.packs = pack
        self._counters = counters or {}
        self._before = before._made if before is not None and before.packs == pack else {}
        self._made: dict[tuple[Any, ...], PreparedTensors] = {}
        self._functions: dict[str, Callable[..., Sequence[torch.Tensor | None]]] = {}
        self._seconds = 0.0

    def __call__(
        self, preparation: Preparation, weights: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor | None]:
        """Prepare weights."""
        key = (preparation.code.filename, *map(id, weights))
        if key not in self._made:
            before = self._before.get(key)
            if before is None or not before.fits(weights):
                before = self._new(preparation, tuple(weights))
            self._made[key] = before
        return self._made[key].tensors

    def _new(self, preparation: Preparation, weights: tuple[torch.Tensor, ...]) -> PreparedTensors:
        started = time.perf_counter()
        counters = [counter for w in weights for counter in self._counters.get(id(w), ())]
        written = VersionWatch((*weights, *counters))
        kind = weights[0].device.type if weights else "cpu"
        # Dtypes are those of the build, whatever region a caller is in.
        with apart(), torch.autocast(kind, enabled=False):
            tensors = self._function(preparation)(*weights)
        self._seconds += time.perf_counter() - started
        memory = {tensor.untyped_storage().data_ptr() for tensor in weights}
        own = [tensor for tensor in tensors if tensor is not None and not _shares(tensor, memory)]
        copied = sum(tensor.numel() * tensor.itemsize for tensor in own)
        return PreparedTensors(tuple(w.detach() for w in weights), written, tensors, copied)

    def _function(self, preparation: Preparation) -> Callable[..., Sequence[torch.Tensor | None]]:
        file = preparation.code.filename
        if file not in self._functions:
            name = "unpacked" if preparation.packs and not self.packs else "prepare"
            self._functions[file] = run_code(preparation.code, {})[name]
        return self._functions[file]

    @classmethod
    def mapped(
        cls,
        found: Iterable[tuple[str, Sequence[torch.Tensor], Sequence[torch.Tensor | None], int]],
    ) -> Prepared:
        """Take over what a file has.

        Args:
            found: for each preparation, the name of its code, the weights that it took, what it
                made, and the bytes of that.
        """
        same = cls(True)
        for file, weights, tensors, size in found:
            there = [weight for weight in weights if type(weight) is not Released]
            made = PreparedTensors(tuple(weights), VersionWatch(there), tensors, size, mapped=True)
            same._made[(file, *map(id, weights))] = made
        return same

    def made(self) -> Iterator[tuple[str, tuple[int, ...], PreparedTensors]]:
        """List what was made, with the name of the preparation and the `id` of each weight."""
        for (file, *ids), made in self._made.items():
            yield file, tuple(ids), made

    def finish(self) -> None:
        """Forget what was made before; nothing keeps weights alive that the model has replaced."""
        self._before = {}

    def memory(self) -> set[int]:
        """List the addresses of the storages of the weights that something was copied from."""
        copied = (made for made in self._made.values() if made.bytes)
        weights = (w for made in copied for w in made.weights if type(w) is not Released)
        return {weight.untyped_storage().data_ptr() for weight in weights}

    def released(self, stand_ins: Mapping[int, torch.Tensor]) -> Prepared:
        """Take over what was made for a model that has stand-ins, by `id` of what they replace."""
        same = Prepared(self.packs, self._counters)
        for (file, *ids), made in self._made.items():
            pairs = zip(ids, made.weights, strict=True)
            weights = tuple(stand_ins.get(number, weight) for number, weight in pairs)
            new = [id(stand_ins[n]) if n in stand_ins else n for n in ids]
            same._made[(file, *new)] = made.with_stand_ins(weights)
        return same

    def of_released(self) -> Prepared:
        """Take over what cannot be made again, since its weights were released."""
        same = Prepared(self.packs, self._counters)
        same._made = {
            key: made
            for key, made in self._made.items()
            if any(type(weight) is Released for weight in made.weights)
        }
        return same

    def watching(self, current: Callable[[], bool]) -> Callable[[], bool]:
        """A function that tells whether weights are `current`, and hold what they held.

        It runs in every call.
        """
        copied = [made for made in self._made.values() if made.bytes]
        weights = {id(tensor): tensor for made in copied for tensor in made.written.tensors}
        if not weights:
            return current
        unchanged = VersionWatch(weights.values()).unchanged
        if not all(made.written.unchanged() for made in copied):
            return _never  # written to while it was read
        return lambda: current() and unchanged()

    def packed(self) -> Packed:
        """The record of what was made."""
        made = self._made.values()
        return Packed(
            self._seconds,
            sum(each.bytes for each in made if not each.mapped),
            sum(tensor is not None for each in made for tensor in each.tensors),
            sum(each.bytes for each in made if each.mapped),
        )


def _never() -> bool:
    return False


def _shares(tensor: torch.Tensor, memory: set[int]) -> bool:
    return tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() in memory
