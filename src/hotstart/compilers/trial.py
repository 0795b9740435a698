"""Run a compiled unit beside the operators it was compiled from, and compare what they do.

Inputs are made up. An element counts only if the operators alone decide it: one that follows from
random numbers, or from memory that nothing was written to, does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.compilers.extract import as_module
from hotstart.compilers.job import Job
from hotstart.compilers.tolerance import close, equal, errors, is_finite, same
from hotstart.compilers.trial_inputs import Values, Weights
from hotstart.compilers.trial_sizes import Sizes, at
from hotstart.partition.operator_names import foreign_operators
from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.made_up import Kind
from hotstart.runtime.preparations import Prepared
from hotstart.runtime.units import python_unit

_KINDS = (
    Kind("counting", "normal"),
    Kind("zeros", "normal"),
    Kind("counting", "positive"),
    Kind("zeros", "positive"),
    Kind("ones", "positive"),
    Kind("zeros", "identity"),
)
"""Kinds of values to try, in this order. An operator that did not come with torch gets no index
but 0: it may check none."""

_SCALES = (1.0, 10.0, 100.0)
"""Factors of the inputs, one for each set of values; weights keep theirs. Large numbers reveal
what small ones hide, such as a maximum over too many elements."""

_MORE = (100.0, 10.0)
"""Factors of further sets, tried if exactly one set shows a difference. A difference counts if two
sets show one: rounding may decide one branch, but wrong code is wrong for many values."""

_DRAWS = 3
"""Runs with other random numbers, which find the elements that depend on them."""


@dataclass(frozen=True)
class Difference:
    """A difference between a unit and its operators.

    Attributes:
        sizes: of the axes.
        where: the output or input.
        what: how they differ, and by how much.
    """

    sizes: Sizes
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}{at(self.sizes)}"


class NotComparable(Exception):
    """The operators cannot be run on made-up inputs; the message says why."""


@dataclass(frozen=True)
class _Run:
    outputs: Sequence[Any]
    inputs: Sequence[torch.Tensor]

    def named(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the outputs and the inputs, which a run may have written to, by name."""
        for number, tensor in enumerate(self.outputs):
            yield f"output {number}", tensor
        for number, tensor in enumerate(self.inputs):
            yield f"input {number}", tensor


class Trial:
    """Compares units that were compiled for a job with its operators."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._kinds: tuple[Kind, ...] = _KINDS
        self._weights: Weights = {}

    def difference(self, unit: CompiledUnit, sizes: Sizes) -> Difference | None:
        """Find a difference between a unit and its operators at some sizes; None if they agree.

        A unit that packs weights is run with and without that, as either may be asked for.

        Raises:
            NotComparable: the operators do not run.
        """
        values, expected = self.runnable(sizes)
        packs = any(preparation.packs for preparation in unit.preparations)
        for pack in (True, False) if packs else (True,):
            call = partial(python_unit(unit).bound, Prepared(pack=pack))
            difference = self._difference_of(call, values, expected)
            if difference is not None:
                return difference
        return None

    def _difference_of(
        self, call: Callable[..., Any], values: Values, expected: _Run
    ) -> Difference | None:
        """Find a difference that two sets of values show."""
        found = [self._difference(call, values, expected)]
        for seed, scale in enumerate((*_SCALES[1:], *_MORE), 1):
            if seed < len(_SCALES) or sum(one is not None for one in found) == 1:
                found.append(self._shown_by(call, values.sizes, values.kind, seed, scale))
        different = [one for one in found if one is not None]
        return different[0] if len(different) > 1 else None

    def _shown_by(
        self, call: Callable[..., Any], sizes: Sizes, kind: Kind, seed: int, scale: float
    ) -> Difference | None:
        """Find a difference with one set of values; with smaller ones if these become infinite."""
        for size in (scale, 1.0) if kind.floats == "normal" else (1.0,):
            values = self._values(sizes, kind, seed, size)
            try:
                expected = self._operators(values)
            except Exception:  # noqa: BLE001  operators that take the first set and not this one
                continue
            if size == 1.0 or all(map(is_finite, expected.outputs)):
                return self._difference(call, values, expected)
        return None

    # --- runs -------------------------------------------------------------------------------------

    @cached_property
    def _module(self) -> fx.GraphModule:
        return as_module(self._job)

    def _values(self, sizes: Sizes, kind: Kind, seed: int, scale: float = 1.0) -> Values:
        return Values(self._job, sizes, kind, seed, scale, self._weights)

    def runnable(self, sizes: Sizes) -> tuple[Values, _Run]:
        """Find values that the operators take, if possible such that nothing becomes infinite.

        Raises:
            NotComparable: there are none, or running them has effects elsewhere.
        """
        foreign = bool(foreign_operators(self._module))
        if foreign and _torch.has_other_processes():
            raise NotComparable("operators of your own may wait for other processes")
        taken: list[tuple[Values, _Run]] = []
        problem: Exception | None = None
        for kind in self._kinds:
            if foreign and kind.integers != "zeros":
                continue
            values = self._values(sizes, kind, 0)
            try:
                run = self._operators(values)
            except Exception as error:  # noqa: BLE001  whatever operators raise for such values
                problem = error
                continue
            taken.append((values, run))
            if all(map(is_finite, run.outputs)):
                # What one size takes, others take.
                self._kinds = (kind, *(other for other in self._kinds if other != kind))
                return taken[-1]
        if not taken:
            raise NotComparable(f"its operators do not run on made-up inputs{at(sizes)}: {problem}")
        return taken[0]

    def _operators(
        self,
        values: Values,
        *,
        memory: contextlib.AbstractContextManager[None] | None = None,
        seed: int = 0,
    ) -> _Run:
        """Run the operators; uninitialised memory is zero, unless `memory` fills it."""
        inputs = values.fresh()
        with self._alone(), memory or _torch.filled_memory():
            torch.default_generator.manual_seed(seed)
            return _Run(self._module(*values.sizes.values(), *inputs), inputs)

    def _in_float64(self, values: Values) -> dict[str, torch.Tensor]:
        """Run the operators in float64; empty if one of them does not take that."""
        inputs = [t.double() if t.is_floating_point() else t for t in values.fresh()]
        try:
            with self._alone(), _torch.filled_memory(), _torch.in_float64():
                torch.default_generator.manual_seed(0)
                return dict(_Run(self._module(*values.sizes.values(), *inputs), inputs).named())
        except Exception:  # noqa: BLE001  an operator that takes the captured dtypes only
            return {}

    @cached_property
    def _makes_unwritten(self) -> bool:
        """Tell whether one of the operators returns uninitialised memory."""
        return any("empty" in str(node.target) for node in self._job.piece.nodes)

    def _revealing(self) -> contextlib.AbstractContextManager[None]:
        """Fill uninitialised memory such that a unit which reads it differs.

        It is zero, as for the operators, where they return such memory themselves.
        """
        return _torch.filled_memory() if self._makes_unwritten else _torch.junk_memory()

    def _otherwise_filled(self) -> contextlib.AbstractContextManager[None]:
        """Fill memory otherwise, to find elements that operators leave uninitialised."""
        return _torch.filled_memory(1) if self._makes_unwritten else _torch.junk_memory()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Run as in a call: outside of the build's modes, and without effects on its randomness."""
        asserts = any(map(_torch.asserts_contents, self._job.piece.nodes))
        without = _torch.without_assertions() if asserts else contextlib.nullcontext()
        with _torch.apart(), torch.random.fork_rng(devices=[]), without:
            yield

    def _unit(self, call: Callable[..., Any], values: Values) -> _Run:
        inputs = values.fresh()
        nodes = self._job.piece.inputs
        pairs = list(zip(nodes, inputs, strict=True))
        weights = [tensor for node, tensor in pairs if self._job.graph.is_weight(node)]
        passed = [tensor for node, tensor in pairs if not self._job.graph.is_weight(node)]
        with self._alone(), self._revealing():
            torch.default_generator.manual_seed(0)
            return _Run(call(*weights)([*values.sizes.values(), *passed]), inputs)

    # --- comparison -------------------------------------------------------------------------------

    def _difference(
        self, call: Callable[..., Any], values: Values, expected: _Run
    ) -> Difference | None:
        sizes = values.sizes
        try:
            found = self._unit(call, values)
        except Exception as error:  # noqa: BLE001  the operators run on the same inputs
            return Difference(sizes, "the unit", f"raises {type(error).__name__}: {error}")
        shared = _sharing(found) - _sharing(expected)
        if shared:
            ends = " and ".join(min(shared))
            return Difference(sizes, ends, "share memory, and do not where operators run")
        different = [
            name
            for (name, one), (_, other) in zip(expected.named(), found.named(), strict=True)
            if not close(one, other)
        ]
        if not different:
            return None
        return self._unexplained(different, values, expected, found)

    def _unexplained(
        self, names: Sequence[str], values: Values, expected: _Run, found: _Run
    ) -> Difference | None:
        """Find a difference that rounding, randomness and uninitialised memory do not explain."""
        draws = [dict(self._operators(values, seed=seed).named()) for seed in range(1, _DRAWS + 1)]
        memory = self._otherwise_filled()
        filled = dict(self._operators(values, memory=memory).named())
        exact = self._in_float64(values)
        wanted, given = dict(expected.named()), dict(found.named())
        for name in names:
            one, other = wanted[name], given[name]
            if one.dtype != other.dtype or one.shape != other.shape:
                return Difference(values.sizes, name, f"is {_form(other)}, not {_form(one)}")
            if not all(same(one, draw[name]) for draw in draws):
                continue
            decided = equal(one, filled[name])
            error, allowed = errors(one, other, exact.get(name), decided)
            if error > allowed:
                what = f"differs by {error:.3g}, where rounding explains {allowed:.3g}"
                return Difference(values.sizes, name, what)
        return None


def _sharing(run: _Run) -> set[tuple[str, str]]:
    """Find pairs of an output and another tensor that share memory."""
    places = {
        name: tensor.untyped_storage().data_ptr()
        for name, tensor in run.named()
        if tensor.numel() and tensor.layout is torch.strided
    }
    outputs = [name for name in places if name.startswith("output")]
    return {
        (min(name, other), max(name, other))
        for name in outputs
        for other in places
        if name != other and places[name] == places[other]
    }


def _form(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"
