"""Make up inputs for a job that can be made again, equal, for every run."""

from __future__ import annotations

from typing import Any

import torch

from hotstart._torch.graphs.symbols import substitution
from hotstart._torch.graphs.writes import was_mutated
from hotstart.capture.captured import example_of
from hotstart.compilers.extract import example_inputs
from hotstart.compilers.job import Job
from hotstart.compilers.proof.trial_sizes import Sizes
from hotstart.records.shapes import spanned
from hotstart.runtime.made_up import Kind, made_up

_FENCE = 1024
"""Elements before and after an input in memory; a float read from there is large, so it shows."""

Weights = dict[tuple[Kind, int], torch.Tensor]
"""Made-up weights by kind and number of the input: they are the same in all runs."""


class Values:
    """Made-up inputs for a job at some sizes.

    Args:
        job: the job.
        sizes: of its axes.
        kind: of values.
        seed: other seeds give other values.
        scale: factor of floating-point inputs; weights keep their values.
        weights: those made so far, which are used again and added to.
    """

    def __init__(
        self, job: Job, sizes: Sizes, kind: Kind, seed: int, scale: float, weights: Weights
    ) -> None:
        self.sizes = sizes
        self.kind = kind
        self._scale = scale
        self._job = job
        self._known = substitution(sizes)
        self._seed = seed
        self._weights = weights
        self._made: dict[int, torch.Tensor] = {}

    def fresh(self) -> list[torch.Tensor]:
        """Make the inputs of a run; weights that nothing writes to are shared by all runs."""
        inputs = example_inputs(self._job, self._number)
        filled: set[int] = set()
        for number, (node, tensor) in enumerate(zip(self._job.piece.inputs, inputs, strict=True)):
            kept = self._job.graph.is_weight(node) and not was_mutated(example_of(node))
            known = self._weights.get((self.kind, number)) if kept else None
            if known is not None and known.shape == tensor.shape:
                inputs[number] = known
                continue
            storage = tensor.untyped_storage().data_ptr()
            if storage not in filled:
                filled.add(storage)
                inputs[number] = self._filled(number, tensor, 1.0 if kept else self._scale)
            if kept:
                self._weights[self.kind, number] = inputs[number]
        return inputs

    def _filled(self, number: int, tensor: torch.Tensor, scale: float) -> torch.Tensor:
        """Fill a tensor, or make one like it with a fence if it does not share its memory."""
        count = tensor.untyped_storage().nbytes() // tensor.itemsize
        alone = count == spanned(tensor.shape, tensor.stride())
        shape, stride = (tensor.shape, tensor.stride()) if alone else ((count,), (1,))
        if number not in self._made:
            made = made_up(shape, stride, tensor.dtype, self.kind, seed=97 * self._seed + number)
            self._made[number] = made.as_strided((count,), (1,))
        values = self._made[number]
        if scale != 1.0 and tensor.is_floating_point() and tensor.itemsize > 1:
            values = values * scale
        if alone:
            fence = 1e4 if tensor.is_floating_point() else 0
            memory = torch.full((count + 2 * _FENCE,), fence, dtype=tensor.dtype)
            memory[_FENCE : _FENCE + count] = values
            return memory.as_strided(shape, stride, _FENCE)
        tensor.new_empty(0).set_(tensor.untyped_storage(), 0, (count,), (1,)).copy_(values)
        return tensor

    def _number(self, value: Any) -> int:
        return int(self._job.graph.number_at(value, self._known))
