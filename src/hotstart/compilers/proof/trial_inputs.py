"""Make up reproducible inputs for a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hotstart._torch.graphs.symbols import substitution
from hotstart.compilers.extract import example_inputs
from hotstart.compilers.job import Job
from hotstart.compilers.proof.trial_edges import INTEGERS, around, integers_around, varies
from hotstart.compilers.proof.trial_sizes import Sizes
from hotstart.records.shapes import spanned
from hotstart.runtime.made_up import Kind, made_up

_FENCE = 1024
"""Elements before and after an input in memory, large so that reading one shows."""


@dataclass(frozen=True)
class Way:
    """A way to make a set of inputs; weights are the same for all sets.

    Attributes:
        seed: other seeds give other values.
        scale: factor of floating-point inputs.
        near: numbers that half of the elements of floating-point inputs lie near; none if empty.
        any_integer: whether integer inputs hold any numbers that the dtype has.
    """

    seed: int
    scale: float = 1.0
    near: tuple[float, ...] = ()
    any_integer: bool = False


class Weights:
    """Made-up weights of a job, which all runs share as nothing may write to them."""

    def __init__(self) -> None:
        self._made: dict[tuple[Kind, int], tuple[torch.Tensor, int]] = {}

    def get(self, kind: Kind, number: int) -> torch.Tensor | None:
        """Return the weight that an input of that number is; None if it was not made yet."""
        made = self._made.get((kind, number))
        return None if made is None else made[0]

    def keep(self, kind: Kind, number: int, weight: torch.Tensor) -> None:
        """Keep a weight for further runs."""
        self._made[kind, number] = weight, _sum_of_bits(weight)

    def forget_written(self) -> list[int]:
        """Forget weights that were written to since they were made, and return their numbers."""
        made = self._made.items()
        written = [key for key, (weight, bits) in made if _sum_of_bits(weight) != bits]
        for key in written:
            del self._made[key]
        return sorted(number for _, number in written)


def _sum_of_bits(tensor: torch.Tensor) -> int:
    """Add up all of a tensor's memory, with the fence around it."""
    storage = tensor.untyped_storage()
    words = torch.empty(0, dtype=torch.int64).set_(storage, 0, (storage.nbytes() // 8,), (1,))
    return int(words.sum())


class Values:
    """Made-up inputs for a job at some sizes.

    Args:
        job: the job.
        sizes: of its axes.
        kind: of values.
        way: how they are made.
        weights: those made so far, which are used again and added to.
    """

    def __init__(self, job: Job, sizes: Sizes, kind: Kind, way: Way, weights: Weights) -> None:
        self.sizes = sizes
        self.kind = kind
        self._way = way
        self._job = job
        self._known = substitution(sizes)
        self._weights = weights
        self._made: dict[int, torch.Tensor] = {}

    def fresh(self) -> list[torch.Tensor]:
        """Make the inputs of a run; weights that nothing writes to are shared by all runs."""
        inputs = example_inputs(self._job, self._number)
        filled: set[int] = set()
        for number, (node, tensor) in enumerate(zip(self._job.piece.inputs, inputs, strict=True)):
            kept = not varies(self._job, node)
            known = self._weights.get(self.kind, number) if kept else None
            if known is not None and known.shape == tensor.shape:
                inputs[number] = known
                continue
            storage = tensor.untyped_storage().data_ptr()
            if storage not in filled:
                filled.add(storage)
                way = Way(self._way.seed) if kept else self._way
                inputs[number] = self._filled(number, tensor, way)
            if kept:
                self._weights.keep(self.kind, number, inputs[number])
        return inputs

    def _filled(self, number: int, tensor: torch.Tensor, way: Way) -> torch.Tensor:
        """Fill a tensor, or make one like it with a fence if it does not share its memory."""
        count = tensor.untyped_storage().nbytes() // tensor.itemsize
        alone = count == spanned(tensor.shape, tensor.stride())
        shape, stride = (tensor.shape, tensor.stride()) if alone else ((count,), (1,))
        if number not in self._made:
            seed = 97 * way.seed + number
            made = made_up(shape, stride, tensor.dtype, self.kind, seed=seed)
            self._made[number] = self._changed(made.as_strided((count,), (1,)), way, seed)
        values = self._made[number]
        if alone:
            fence = 1e4 if tensor.is_floating_point() else 0
            memory = torch.full((count + 2 * _FENCE,), fence, dtype=tensor.dtype)
            memory[_FENCE : _FENCE + count] = values
            return memory.as_strided(shape, stride, _FENCE)
        tensor.new_empty(0).set_(tensor.untyped_storage(), 0, (count,), (1,)).copy_(values)
        return tensor

    def _changed(self, values: torch.Tensor, way: Way, seed: int) -> torch.Tensor:
        """Scale and mix values as `Way` says."""
        if values.dtype in INTEGERS:
            table = integers_around(values.dtype)
            return _drawn(table, values.shape, seed) if way.any_integer else values
        if not values.is_floating_point() or values.itemsize == 1:
            return values
        if way.scale != 1.0:
            values = values * way.scale
        if way.near and self.kind.floats != "identity":
            table = around(way.near, values.dtype)
            values = _mixed(values, table if self.kind.floats == "normal" else table.abs(), seed)
        return values

    def _number(self, value: Any) -> int:
        return int(self._job.graph.number_at(value, self._known))


def _mixed(values: torch.Tensor, table: torch.Tensor, seed: int) -> torch.Tensor:
    """Replace about half of some values by those of a table."""
    generator = torch.Generator().manual_seed(seed)
    replaced = torch.rand(values.shape, generator=generator) < 0.5
    return torch.where(replaced, _drawn(table, values.shape, seed + 1), values)


def _drawn(table: torch.Tensor, shape: torch.Size, seed: int) -> torch.Tensor:
    """Draw values of a table."""
    generator = torch.Generator().manual_seed(seed)
    return table[torch.randint(len(table), shape, generator=generator)]
