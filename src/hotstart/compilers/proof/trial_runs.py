"""Run the operators of a job on made-up inputs, as often as a comparison needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.assertions import asserts_contents
from hotstart._torch.graphs.lazy_modules import forward_of
from hotstart._torch.running.fresh_memory import filled_memory, junk_memory
from hotstart._torch.running.modes import apart, without_assertions
from hotstart._torch.running.widening import in_float64
from hotstart.compilers.extract import as_module
from hotstart.compilers.job import Job
from hotstart.compilers.proof.tolerance import same
from hotstart.compilers.proof.trial_inputs import Values

_DRAWS = 3
"""Number of runs with other random numbers, or other last digits of inputs, which find elements
that depend on them."""


@dataclass(frozen=True)
class Run:
    """The results of a run.

    Attributes:
        outputs: the results.
        inputs: what it was given, which it may have written to.
    """

    outputs: Sequence[Any]
    inputs: Sequence[torch.Tensor]

    def named(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the outputs and the inputs by name."""
        for number, tensor in enumerate(self.outputs):
            yield f"output {number}", tensor
        for number, tensor in enumerate(self.inputs):
            yield f"input {number}", tensor


class Operators:
    """The operators that a job was captured as.

    Args:
        job: the job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    @cached_property
    def module(self) -> fx.GraphModule:
        """The operators as a module."""
        return as_module(self._job)

    def run(
        self,
        values: Values,
        *,
        memory: contextlib.AbstractContextManager[None] | None = None,
        seed: int = 0,
    ) -> Run:
        """Run them; uninitialised memory is zero, unless `memory` fills it."""
        inputs = values.fresh()
        with self.alone(), memory or filled_memory():
            torch.default_generator.manual_seed(seed)
            return Run(self._forward(*values.sizes.values(), *inputs), inputs)

    def in_float64(self, values: Values, *, nudged: int | None = None) -> dict[str, torch.Tensor]:
        """Run them in float64; empty if one of them does not take float64.

        Args:
            values: what they run on.
            nudged: seed of changes in the last digit of inputs; None for none.
        """
        made = values.fresh()
        generator = None if nudged is None else torch.Generator().manual_seed(nudged)
        inputs = [_in_float64(t, generator) if t.is_floating_point() else t for t in made]
        try:
            with self.alone(), filled_memory(), in_float64():
                torch.default_generator.manual_seed(0)
                return dict(Run(self._forward(*values.sizes.values(), *inputs), inputs).named())
        except Exception:  # noqa: BLE001  an operator that takes the captured dtypes only
            return {}

    @cached_property
    def _forward(self) -> Callable[..., Any]:
        return forward_of(self.module)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Run as in a call: outside of the build's modes, and without effects on its randomness."""
        asserts = any(map(asserts_contents, self._job.piece.nodes))
        without = without_assertions() if asserts else contextlib.nullcontext()
        with apart(), torch.random.fork_rng(devices=[]), without:
            yield

    @cached_property
    def _makes_unwritten(self) -> bool:
        """Tell whether one of them returns uninitialised memory."""
        return any("empty" in str(node.target) for node in self._job.piece.nodes)

    def revealing(self) -> contextlib.AbstractContextManager[None]:
        """Fill uninitialised memory such that a unit which reads it differs.

        It is zero if the operators return uninitialised memory themselves.
        """
        return filled_memory() if self._makes_unwritten else junk_memory()

    def otherwise_filled(self) -> contextlib.AbstractContextManager[None]:
        """Fill memory with another value, to find elements that operators leave uninitialised."""
        return filled_memory(1) if self._makes_unwritten else junk_memory()


class Reference:
    """The operators' results for one set of values; further runs are made on demand.

    Args:
        operators: run.
        values: what they run on.

    Attributes:
        values: as given.
        expected: what they give.

    Raises:
        Exception: whatever operators raise for such values.
    """

    def __init__(self, operators: Operators, values: Values) -> None:
        self._operators = operators
        self.values = values
        self.expected = operators.run(values)

    @cached_property
    def filled(self) -> dict[str, torch.Tensor]:
        """The results by name where uninitialised memory holds something else."""
        memory = self._operators.otherwise_filled()
        return dict(self._operators.run(self.values, memory=memory).named())

    @cached_property
    def exact(self) -> dict[str, torch.Tensor]:
        """The results by name in float64; empty if an operator does not take that."""
        return self._operators.in_float64(self.values)

    @cached_property
    def nudged(self) -> list[dict[str, torch.Tensor]]:
        """The results by name in float64 for inputs that differ in their last digit.

        Empty where an operator does not take these.
        """
        seeds = range(1, _DRAWS + 1)
        return [self._operators.in_float64(self.values, nudged=seed) for seed in seeds]

    @cached_property
    def _draws(self) -> list[dict[str, torch.Tensor]]:
        """The results by name with other random numbers."""
        seeds = range(1, _DRAWS + 1)
        return [dict(self._operators.run(self.values, seed=seed).named()) for seed in seeds]

    def is_drawn(self, name: str) -> bool:
        """Tell whether a result depends on random numbers."""
        expected = dict(self.expected.named())[name]
        return not all(same(expected, draw[name]) for draw in self._draws)


def _in_float64(tensor: torch.Tensor, nudges: torch.Generator | None) -> torch.Tensor:
    """Convert a tensor to float64, and change the last digit of its elements by `nudges`."""
    if nudges is None:
        return tensor.double()
    digit = torch.finfo(torch.float64 if tensor.dtype is torch.float64 else torch.float32).eps
    drawn = torch.randn(tensor.shape, generator=nudges, dtype=torch.float64)
    return tensor.double() * (1.0 + digit * drawn.sign())
