"""Run a compiled unit beside the operators it was compiled from, and compare what they do.

Inputs are made up. An element counts only if the operators alone decide it: one that follows from
random numbers, or from memory that nothing was written to, does not.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.compilers.extract import as_module, example_inputs
from hotstart.compilers.job import Job
from hotstart.compilers.tolerance import close, equal, errors, is_finite, same
from hotstart.partition.names import foreign_operators
from hotstart.partition.plan import example_of, tensors_in
from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.made_up import Kind, made_up, spanned
from hotstart.runtime.units import instantiate

Sizes = Mapping[str, int]

_KINDS = (
    Kind("counting", "normal"),
    Kind("zeros", "normal"),
    Kind("counting", "positive"),
    Kind("zeros", "positive"),
    Kind("ones", "positive"),
    Kind("zeros", "identity"),
)
"""Kinds of values to try; operators that did not come with torch may take no index but 0."""

_SCALES = (1.0, 10.0, 100.0)
"""How many times as large the inputs of each set of values are; weights are what they were.
Large numbers show what small ones hide, such as a maximum over too much."""

_MORE = (100.0, 10.0)
"""Further sets, where one of them shows a difference. It counts if another one shows one, too:
rounding decides a branch once, and what is wrong is wrong for many values."""

_FENCE = 1024
"""Elements before and after an input in memory, large where floats: reading these shows."""

_DRAWS = 3
"""Runs with other random numbers that tell what follows from them."""


@dataclass(frozen=True)
class Difference:
    """What a unit does that its operators do not.

    Attributes:
        sizes: of the axes.
        where: the output or input.
        what: by how much, or in which way.
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
        """Everything a run leaves behind."""
        for number, tensor in enumerate(self.outputs):
            yield f"output {number}", tensor
        for number, tensor in enumerate(self.inputs):
            yield f"input {number}", tensor


def at(sizes: Sizes) -> str:
    """Sizes as a phrase, such as ` at batch=2, seq=7`; nothing where there are none."""
    named = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    return f" at {named}" if named else ""


class Trial:
    """A job's operators, ready to be run beside units that were compiled for it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._kinds: tuple[Kind, ...] = _KINDS
        self._weights: _Weights = {}

    def sizes(self, most: int) -> list[dict[str, int]]:
        """The sizes to compare at, least work first.

        These are both ends, 0, 1, an odd one, one that leaves half a vector over, the tuned one.

        Args:
            most: how many elements the tensors of all runs may have together. Where the high end
                is too much, a smaller size stands for it.
        """
        chosen: list[dict[str, int]] = []
        left = most
        for sizes in sorted(self._candidates(most // 4), key=self._work):
            work = self._work(sizes)
            if sizes not in chosen and (work <= left or not chosen):
                chosen.append(sizes)
                left -= work
        return chosen

    def difference(self, unit: CompiledUnit, sizes: Sizes) -> Difference | None:
        """What a unit does at some sizes that its operators do not; None if nothing.

        Raises:
            NotComparable: the operators do not run.
        """
        call = instantiate(unit)
        values, expected = self._runnable(sizes)
        found = [self._difference(call, sizes, values, expected)]
        for seed, scale in enumerate((*_SCALES[1:], *_MORE), 1):
            if seed < len(_SCALES) or sum(one is not None for one in found) == 1:
                found.append(self._shown_by(call, sizes, values.kind, seed, scale))
        different = [one for one in found if one is not None]
        return different[0] if len(different) > 1 else None

    def _shown_by(
        self, call: Callable[..., Any], sizes: Sizes, kind: Kind, seed: int, scale: float
    ) -> Difference | None:
        """A difference that one set of values shows; smaller ones if these become infinite."""
        for size in (scale, 1.0) if kind.floats == "normal" else (1.0,):
            values = self._values(sizes, kind, seed, size)
            try:
                expected = self._operators(sizes, values.fresh())
            except Exception:  # noqa: BLE001  operators that take the first set and not this one
                continue
            if size == 1.0 or all(map(is_finite, expected.outputs)):
                return self._difference(call, sizes, values, expected)
        return None

    # --- sizes ------------------------------------------------------------------------------------

    def _candidates(self, most: int) -> Iterator[dict[str, int]]:
        bounds = self._job.bounds
        tuned = {axis: bound.hint for axis, bound in bounds.items()}
        odd = {a: b.hint if b.high < 3 else max(3, b.low | 1) for a, b in bounds.items()}
        half = {a: max(24, b.low + (8 - b.low) % 16) for a, b in bounds.items()}
        wanted = [
            tuned,
            {axis: bound.low for axis, bound in bounds.items()},
            *({a: min(size, bounds[a].high) for a, size in sizes.items()} for sizes in (odd, half)),
            *({**tuned, axis: size} for axis in bounds for size in (0, 1)),
            self._high(most),
        ]
        for sizes in wanted:
            inside = all(bounds[a].low <= size <= bounds[a].high for a, size in sizes.items())
            if inside and all(_torch.holds_at(condition, sizes) for condition in self._job.where):
                yield sizes

    def _high(self, most: int) -> dict[str, int]:
        """The high end of every axis, or as much of it as is not too much work."""
        sizes = {axis: bound.high for axis, bound in self._job.bounds.items()}
        while self._work(sizes) > most and any(
            s > self._job.bounds[a].low for a, s in sizes.items()
        ):
            sizes = {a: max(self._job.bounds[a].low, size // 2) for a, size in sizes.items()}
        return sizes

    def _work(self, sizes: Sizes) -> int:
        """The elements of all tensors that are read or made."""
        known = _torch.substitution(sizes)
        return sum(
            count
            * math.prod(
                size if isinstance(size, int) else int(size.xreplace(known)) for size in shape
            )
            for shape, count in self._shapes.items()
        )

    @cached_property
    def _shapes(self) -> Counter[tuple[Any, ...]]:
        """The shapes of all tensors, but those of nested ones, whose sizes no axis tells."""
        known = set(map(_torch.axis_symbol, self._job.bounds))
        nodes = (*self._job.piece.inputs, *self._job.piece.nodes)
        tensors = (tensor for node in nodes for tensor in tensors_in(example_of(node)))
        shapes = (tuple(map(self._job.graph.expression, t.shape)) for t in tensors)
        return Counter(
            shape
            for shape in shapes
            if all(isinstance(size, int) or size.free_symbols <= known for size in shape)
        )

    # --- runs -------------------------------------------------------------------------------------

    @cached_property
    def _module(self) -> fx.GraphModule:
        return as_module(self._job)

    def _values(self, sizes: Sizes, kind: Kind, seed: int, scale: float = 1.0) -> _Values:
        return _Values(self._job, sizes, kind, seed, scale, self._weights)

    def _runnable(self, sizes: Sizes) -> tuple[_Values, _Run]:
        """Values that the operators take, if possible such that nothing becomes infinite."""
        if any(map(_torch.communicates, self._job.piece.nodes)):
            raise NotComparable("its operators wait for other processes")
        foreign = bool(foreign_operators(self._module))
        taken: list[tuple[_Values, _Run]] = []
        problem: Exception | None = None
        for kind in self._kinds:
            if foreign and kind.integers != "zeros":
                continue
            values = self._values(sizes, kind, 0)
            try:
                run = self._operators(sizes, values.fresh())
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
        sizes: Sizes,
        inputs: Sequence[torch.Tensor],
        *,
        memory: contextlib.AbstractContextManager[None] | None = None,
        seed: int = 0,
    ) -> _Run:
        """Run the operators; memory that nothing was written to is zero, unless said otherwise."""
        with self._alone(), memory or _torch.filled_memory():
            torch.default_generator.manual_seed(seed)
            return _Run(self._module(*sizes.values(), *inputs), inputs)

    def _in_float64(self, sizes: Sizes, values: _Values) -> dict[str, torch.Tensor]:
        """What the operators give in float64; nothing where one of them does not compute that."""
        inputs = [t.double() if t.is_floating_point() else t for t in values.fresh()]
        try:
            with self._alone(), _torch.filled_memory(), _torch.in_float64():
                torch.default_generator.manual_seed(0)
                return dict(_Run(self._module(*sizes.values(), *inputs), inputs).named())
        except Exception:  # noqa: BLE001  an operator that takes the captured dtypes only
            return {}

    @cached_property
    def _makes_unwritten(self) -> bool:
        """Tell whether one of the operators returns uninitialised memory."""
        return any("empty" in str(node.target) for node in self._job.piece.nodes)

    def _revealing(self) -> contextlib.AbstractContextManager[None]:
        """Have unwritten memory that a unit reads show, unless its operators are given such."""
        return _torch.filled_memory() if self._makes_unwritten else _torch.junk_memory()

    def _otherwise_filled(self) -> contextlib.AbstractContextManager[None]:
        """Have unwritten memory that operators read show, such as rows that a wrong index skips."""
        return _torch.filled_memory(1) if self._makes_unwritten else _torch.junk_memory()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Run as a call does, whatever the build runs in; nothing that runs is felt outside."""
        asserts = any(map(_torch.asserts_contents, self._job.piece.nodes))
        without = _torch.without_assertions() if asserts else contextlib.nullcontext()
        with _torch.apart(), torch.random.fork_rng(devices=[]), without:
            yield

    def _unit(self, call: Callable[..., Any], sizes: Sizes, inputs: Sequence[torch.Tensor]) -> _Run:
        nodes = self._job.piece.inputs
        pairs = list(zip(nodes, inputs, strict=True))
        weights = [tensor for node, tensor in pairs if self._job.graph.is_weight(node)]
        passed = [tensor for node, tensor in pairs if not self._job.graph.is_weight(node)]
        with self._alone(), self._revealing():
            torch.default_generator.manual_seed(0)
            return _Run(call(*weights)([*sizes.values(), *passed]), inputs)

    # --- comparison -------------------------------------------------------------------------------

    def _difference(
        self, call: Callable[..., Any], sizes: Sizes, values: _Values, expected: _Run
    ) -> Difference | None:
        try:
            found = self._unit(call, sizes, values.fresh())
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
        return self._looked_into(different, sizes, values, expected, found)

    def _looked_into(
        self,
        names: Sequence[str],
        sizes: Sizes,
        values: _Values,
        expected: _Run,
        found: _Run,
    ) -> Difference | None:
        """The first of some differences that rounding, random numbers and memory do not explain."""
        draws = [
            dict(self._operators(sizes, values.fresh(), seed=seed).named())
            for seed in range(1, _DRAWS + 1)
        ]
        memory = self._otherwise_filled()
        filled = dict(self._operators(sizes, values.fresh(), memory=memory).named())
        exact = self._in_float64(sizes, values)
        wanted, given = dict(expected.named()), dict(found.named())
        for name in names:
            one, other = wanted[name], given[name]
            if one.dtype != other.dtype or one.shape != other.shape:
                return Difference(sizes, name, f"is {_form(other)}, not {_form(one)}")
            if not all(same(one, draw[name]) for draw in draws):
                continue
            decided = equal(one, filled[name])
            error, allowed = errors(one, other, exact.get(name), decided)
            if error > allowed:
                what = f"differs by {error:.3g}, where rounding explains {allowed:.3g}"
                return Difference(sizes, name, what)
        return None


_Weights = dict[tuple[Kind, int], torch.Tensor]
"""Made-up weights by kind and number of the input: they are the same in all runs."""


class _Values:
    """Made-up inputs for a job, which can be made again and again."""

    def __init__(
        self, job: Job, sizes: Sizes, kind: Kind, seed: int, scale: float, weights: _Weights
    ) -> None:
        self.kind = kind
        self.scale = scale
        self._job = job
        self._sizes = _torch.substitution(sizes)
        self._seed = seed
        self._weights = weights
        self._made: dict[int, torch.Tensor] = {}

    def fresh(self) -> list[torch.Tensor]:
        """The inputs of a run; weights that nothing writes to are the same in all of them."""
        inputs = example_inputs(self._job, self._number)
        filled: set[int] = set()
        for number, (node, tensor) in enumerate(zip(self._job.piece.inputs, inputs, strict=True)):
            kept = self._job.graph.is_weight(node) and not _torch.was_mutated(example_of(node))
            known = self._weights.get((self.kind, number)) if kept else None
            if known is not None and known.shape == tensor.shape:
                inputs[number] = known
                continue
            storage = tensor.untyped_storage().data_ptr()
            if storage not in filled:
                filled.add(storage)
                inputs[number] = self._filled(number, tensor, 1.0 if kept else self.scale)
            if kept:
                self._weights[self.kind, number] = inputs[number]
        return inputs

    def _filled(self, number: int, tensor: torch.Tensor, scale: float) -> torch.Tensor:
        """A tensor with values: itself, or one that has a fence around its memory."""
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
        return int(self._job.number(value, self._sizes))


def _sharing(run: _Run) -> set[tuple[str, str]]:
    """Pairs of an output and something else that have memory in common."""
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
