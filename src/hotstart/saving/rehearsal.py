"""Run the variants of an artifact one by one, and report every tensor that is returned."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from hotstart import _torch
from hotstart.records.artifact import Artifact, CompiledCall, Stitched
from hotstart.records.shapes import labelled
from hotstart.records.trees import tensors_of
from hotstart.runtime.generated import run_code
from hotstart.runtime.prepared import Prepared
from hotstart.runtime.results import result_classes
from hotstart.runtime.signature import passed_objects
from hotstart.runtime.units import Unit
from hotstart.saving.inputs import Inputs, Real, choices, tensors, weights

Note = Callable[[str, torch.Tensor], None]
"""Called with the key of a unit, or `"result"`, and one of its outputs, right after the run."""


class Rehearsal:
    """Runs the variants of an artifact, on made-up or on real weights and inputs.

    Attributes:
        names: the name of each variant.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._parts = [(call, stitched) for call in artifact.calls for stitched in call.stitched]
        self._units = {unit.key: Unit(unit) for unit in artifact.units}
        self._asserts = _asserts(artifact)
        self.names = tuple(labelled(call.name, s.variant) for call, s in self._parts)

    def choices(self, number: int, real: Real) -> list[Inputs]:
        """List the inputs to try for a variant, in order."""
        call, stitched = self._parts[number]
        return choices(call, stitched.variant, real)

    def run(self, number: int, inputs: Inputs, real: Real, note: Note) -> None:
        """Run a variant, and call `note` with every tensor that a piece or the variant returns.

        Uninitialised memory is zero, so that results are the same in every process. Assertions
        about the contents of tensors are left out, since they need not hold for made-up inputs.

        Raises:
            Exception: whatever operators raise for such inputs.
        """
        call, stitched = self._parts[number]
        artifact = self._artifact
        held = weights(artifact.requirements, dict(artifact.captured), real.weights)
        prepared = Prepared(pack=True)
        bound = {key: partial(self._units[key].bound, prepared) for key in stitched.units}
        own = [_noted(unit, key, note) for key, unit in bound.items()]
        make = run_code(stitched.code, result_classes(stitched.types, "own"))["bind"]
        owners = [types.SimpleNamespace() for _ in stitched.owners]
        unasserted = _torch.without_assertions() if self._asserts else contextlib.nullcontext()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _torch.filled_memory(), unasserted:
            torch.manual_seed(0)
            run = make([held[s] for s in stitched.weights], own, stitched.constants, owners)
            result = run(*_arguments(call, inputs))
        for _, tensor in tensors_of(result):
            note("result", tensor)


def _asserts(artifact: Artifact) -> bool:
    stitched: Iterator[Stitched] = (s for call in artifact.calls for s in call.stitched)
    sources = [*(unit.source for unit in artifact.units), *(s.source for s in stitched)]
    return any("_assert_async" in source for source in sources)


def _noted(unit: Callable[..., Any], key: str, note: Note) -> Callable[..., Any]:
    def bind(*weights: Any) -> Any:
        call = unit(*weights)

        def noted(args: list[Any]) -> Any:
            outputs = call(args)
            for output in outputs:
                note(key, output)
            return outputs

        return noted

    return bind


def _arguments(call: CompiledCall, inputs: Inputs) -> list[Any]:
    contract = call.contract
    made = tensors(contract, inputs)
    given = [made[slot] for slot in contract.given]
    objects = passed_objects(contract, made)
    return [*(inputs.sizes[dim.name] for dim in contract.axes), *made, *given, *objects]
