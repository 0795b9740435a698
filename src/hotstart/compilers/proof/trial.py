"""Run a compiled unit beside the operators it was compiled from, and compare the results.

Inputs are made up. Elements that depend on random numbers or uninitialised memory are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch

from hotstart._torch.processes.ranks import has_other_processes
from hotstart.compilers.job import Job
from hotstart.compilers.proof.tolerance import (
    close,
    equal,
    error_of_inputs,
    errors,
    is_finite,
    parts,
)
from hotstart.compilers.proof.trial_edges import has_floats, numbers_of, take_any_integer
from hotstart.compilers.proof.trial_inputs import Values, Way, Weights
from hotstart.compilers.proof.trial_runs import Operators, Reference, Run
from hotstart.compilers.proof.trial_sizes import Sizes, at
from hotstart.partition.operator_names import foreign_operators
from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.code.unit_functions import python_unit
from hotstart.runtime.made_up import Kind
from hotstart.runtime.weights.preparations import Prepared

_KINDS = (
    Kind("counting", "normal"),
    Kind("zeros", "normal"),
    Kind("counting", "positive"),
    Kind("zeros", "positive"),
    Kind("ones", "positive"),
    Kind("zeros", "identity"),
)
"""Kinds of values to try, in this order. An operator that did not come with torch gets index 0
only, since it may not check bounds."""

_WAYS = (Way(0), Way(1, scale=10.0), Way(2, scale=100.0))
"""Ways to make sets of inputs; weights keep their values. Large numbers reveal errors that small
ones hide, such as a maximum over too many elements."""

_MORE = (Way(3, scale=100.0), Way(4, scale=10.0))
"""Further sets, tried if exactly one set shows a difference. A difference counts if two sets show
one: rounding may flip a branch for one set, but wrong code is wrong for many."""

_AT_EDGES = (5, 6, 7)
"""Seeds of sets whose values lie near bounds of operators; the last two are tried if the first
shows a difference."""


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


class Trial:
    """Compares units that were compiled for a job with its operators."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._operators = Operators(job)
        self._kinds: tuple[Kind, ...] = _KINDS
        self._weights = Weights()

    def difference(self, unit: CompiledUnit, sizes: Sizes) -> Difference | None:
        """Find a difference between a unit and its operators at some sizes; None if they agree.

        A unit that packs weights is run with packed and unpacked weights, since a load may ask for
        either.

        Raises:
            NotComparable: the operators do not run.
        """
        sets: dict[Way, Reference | None] = {_WAYS[0]: self.runnable(sizes)}
        packs = any(preparation.packs for preparation in unit.preparations)
        for pack in (True, False) if packs else (True,):
            call = partial(python_unit(unit).bound, Prepared(pack=pack))
            difference = self._difference_of(call, sets)
            if difference is not None:
                return difference
        return None

    def written_weight(self) -> Difference | None:
        """Find a weight that units wrote to since this was last asked; operators write to none."""
        written = self._weights.forget_written()
        return Difference({}, f"input {written[0]}", "is written to") if written else None

    def _difference_of(
        self, call: Callable[..., Any], sets: dict[Way, Reference | None]
    ) -> Difference | None:
        """Find a difference that two sets of values show.

        Args:
            call: the unit.
            sets: those made so far; further ones are added.
        """
        at_edges = self._at_edges
        found = self._differences(call, sets, (*_WAYS, *at_edges[:1]))
        if len(found) == 1:
            more = at_edges[1:] if next(iter(found)) in at_edges else _MORE
            found |= self._differences(call, sets, more)
        return next(iter(found.values())) if len(found) > 1 else None

    def _differences(
        self, call: Callable[..., Any], sets: dict[Way, Reference | None], ways: Iterable[Way]
    ) -> dict[Way, Difference]:
        """Find differences for some sets of values; sets that do not exist yet are made."""
        first = sets[_WAYS[0]]
        assert first is not None
        found: dict[Way, Difference] = {}
        for way in ways:
            if way not in sets:
                sets[way] = self._further(first.values, way)
            reference = sets[way]
            different = None if reference is None else self._difference(call, reference)
            if different is not None:
                found[way] = different
        return found

    def _further(self, first: Values, way: Way) -> Reference | None:
        """Make another set of values; smaller ones if results become infinite.

        Returns:
            None if the operators raise for this set, and did not for the first.
        """
        for tried in _ever_more_ordinary(way, first.kind):
            try:
                reference = self._reference(first.sizes, first.kind, tried)
            except Exception:  # noqa: BLE001  whatever operators raise
                continue
            plain = tried == Way(way.seed)
            if plain or all(map(is_finite, reference.expected.outputs)):
                return reference
        return None

    @cached_property
    def _at_edges(self) -> tuple[Way, ...]:
        """Sets of values near the edges; none where all inputs are weights."""
        near = numbers_of(self._job) if has_floats(self._job) else ()
        any_integer = take_any_integer(self._job)
        if not near and not any_integer:
            return ()
        return tuple(Way(seed, near=near, any_integer=any_integer) for seed in _AT_EDGES)

    # --- runs -------------------------------------------------------------------------------------

    def _reference(self, sizes: Sizes, kind: Kind, way: Way) -> Reference:
        values = Values(self._job, sizes, kind, way, self._weights)
        return Reference(self._operators, values)

    def runnable(self, sizes: Sizes) -> Reference:
        """Find values that the operators take, if possible such that nothing becomes infinite.

        Raises:
            NotComparable: there are none, or running them has effects elsewhere.
        """
        foreign = bool(foreign_operators(self._operators.module))
        if foreign and has_other_processes():
            raise NotComparable("operators of your own may wait for other processes")
        taken: list[Reference] = []
        problem: Exception | None = None
        for kind in self._kinds:
            if foreign and kind.integers != "zeros":
                continue
            try:
                reference = self._reference(sizes, kind, _WAYS[0])
            except Exception as error:  # noqa: BLE001  whatever operators raise for such values
                problem = error
                continue
            taken.append(reference)
            if all(map(is_finite, reference.expected.outputs)):
                # What one size takes, others take.
                self._kinds = (kind, *(other for other in self._kinds if other != kind))
                return taken[-1]
        if not taken:
            raise NotComparable(f"its operators do not run on made-up inputs{at(sizes)}: {problem}")
        return taken[0]

    def _unit(self, call: Callable[..., Any], values: Values) -> Run:
        inputs = values.fresh()
        nodes = self._job.piece.inputs
        pairs = list(zip(nodes, inputs, strict=True))
        weights = [tensor for node, tensor in pairs if self._job.graph.is_weight(node)]
        passed = [tensor for node, tensor in pairs if not self._job.graph.is_weight(node)]
        with self._operators.alone(), self._operators.revealing():
            torch.default_generator.manual_seed(0)
            return Run(call(*weights)([*values.sizes.values(), *passed]), inputs)

    # --- comparison -------------------------------------------------------------------------------

    def _difference(self, call: Callable[..., Any], reference: Reference) -> Difference | None:
        sizes, expected = reference.values.sizes, reference.expected
        try:
            found = self._unit(call, reference.values)
        except Exception as error:  # noqa: BLE001  the operators run on the same inputs
            return Difference(sizes, "the unit", f"raises {type(error).__name__}: {error}")
        shared = _sharing(found) - _sharing(expected)
        if shared:
            ends = " and ".join(min(shared))
            return Difference(sizes, ends, "share memory, and do not where operators run")
        for (name, one), (_, other) in zip(expected.named(), found.named(), strict=True):
            what = None if close(one, other) else _unexplained(reference, name, one, other)
            if what is not None:
                return Difference(sizes, name, what)
        return None


def _ever_more_ordinary(way: Way, kind: Kind) -> Iterator[Way]:
    """Yield a way to make values, and those that are tried if results become infinite."""
    if way.near or way.any_integer:
        yield way
        if way.near and way.any_integer:
            yield replace(way, any_integer=False)
        return
    if kind.floats == "normal":
        yield way
    yield Way(way.seed)


def _unexplained(
    reference: Reference, name: str, one: torch.Tensor, other: torch.Tensor
) -> str | None:
    """Describe a difference that rounding, randomness and uninitialised memory do not explain."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"is {_form(other)}, not {_form(one)}"
    exact = reference.exact.get(name)
    for part in parts(one):
        decided = part & equal(one, reference.filled[name])
        error, allowed = errors(one, other, exact, decided)
        if error > allowed and exact is not None and math.isfinite(error):
            nudged = (run.get(name) for run in reference.nudged)
            allowed = max(allowed, error_of_inputs(one, exact, nudged, decided))
        if error > allowed and not reference.is_drawn(name):
            return f"differs by {error:.3g}, where rounding explains {allowed:.3g}"
    return None


def _sharing(run: Run) -> set[tuple[str, str]]:
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
