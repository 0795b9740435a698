"""Run the variants of an artifact one by one, and report every tensor that is returned."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from hotstart._torch.processes.collectives import without_other_processes
from hotstart._torch.running.fresh_memory import filled_memory
from hotstart._torch.running.modes import autocast_regions, without_assertions
from hotstart.dtypes import dtype_of
from hotstart.errors import ArtifactError
from hotstart.records.artifact import Artifact, Stitched, StitchedCall
from hotstart.records.contract import Contract
from hotstart.records.groups import GroupSlot
from hotstart.records.shapes import labelled
from hotstart.records.sides import OtherSide, leaves
from hotstart.records.trees import build, containers, tensors_of
from hotstart.runtime.code.generated import run_code
from hotstart.runtime.code.unit_functions import Form, Forms
from hotstart.runtime.results import result_classes
from hotstart.runtime.weights.preparations import Prepared
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
        forms = Forms(artifact)
        # Whatever they lack in this process shows here, and not as an error of some inputs.
        self._python = [forms.python(stitched) for _, stitched in self._parts]
        self._served = [forms.of(n, stitched) for n, (_, stitched) in enumerate(self._parts)]
        self._asserts = _asserts(artifact)
        self.names = tuple(labelled(call.name, s.variant) for call, s in self._parts)

    def choices(self, number: int, real: Real) -> list[Inputs]:
        """List the inputs to try for a variant, in order."""
        call, stitched = self._parts[number]
        return choices(call, stitched.variant, real)

    def run(self, number: int, inputs: Inputs, real: Real, note: Note) -> None:
        """Run a variant, and call `note` with every tensor that a piece or the variant returns.

        One that is native runs in Python first, where what pieces return can be seen. Uninitialised
        memory is zero, and autocast is as at the build, so that results are the same in every
        process. Assertions about the contents of tensors are left out, since they need not hold for
        made-up inputs. No other process takes part: collectives give what they would if all had the
        same tensors.

        Raises:
            ArtifactError: the two forms of the variant give something else.
            Exception: whatever operators raise for such inputs.
        """
        result = self._run_in_python(number, inputs, real, note)
        for _, tensor in tensors_of(result):
            note("result", tensor)
        if self._served[number].native:
            native = self._run(number, self._served[number], inputs, real, None)
            for (path, one), (_, other) in zip(tensors_of(result), tensors_of(native), strict=True):
                if not _same_bits(one, other):
                    raise ArtifactError(
                        f"variant {self.names[number]}: expected its native form to give what its "
                        f"Python form gives, found another {path or 'result'}. Build with "
                        "Options(form='python')."
                    )

    def _run_in_python(self, number: int, inputs: Inputs, real: Real, note: Note) -> Any:
        """Run a variant; one with branches goes on as it was traced if it runs on the inputs so."""
        form = self._python[number]
        _, stitched = self._parts[number]
        if OtherSide.__name__ in stitched.source:
            with contextlib.suppress(Exception):
                return self._run(number, form, inputs, real, note, stays=True)
        return self._run(number, form, inputs, real, note)

    def _run(
        self,
        number: int,
        form: Form,
        inputs: Inputs,
        real: Real,
        note: Note | None,
        *,
        stays: bool = False,
    ) -> Any:
        """Run a variant in one of its forms.

        Args:
            number: the variant's.
            form: the form.
            inputs: what it is called with.
            real: weights that are taken as they are.
            note: is told of what pieces return.
            stays: whether the call goes on where it would leave for the other side of a branch.
        """
        call, stitched = self._parts[number]
        artifact = self._artifact
        held = weights(artifact.requirements, dict(artifact.captured), real.weights)
        prepared = Prepared(pack=True)
        own: list[Callable[..., Any]] = [partial(unit.bound, prepared) for unit in form.units]
        if note is not None:
            pairs = zip(stitched.units, own, strict=True)
            own = [_noted(unit, key, note) for key, unit in pairs]
        scope = {**form.scope, **result_classes(stitched.types, "own")}
        code = run_code(form.code, scope)
        if stays:
            code.update((name, _stays) for name, value in [*code.items()] if value is leaves)
        make = code["bind"]
        owners = [types.SimpleNamespace() for _ in stitched.owners]
        constants = [_group_alone(each) for each in stitched.constants]
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(autocast_regions(call.contract.autocast))
            if call.contract.default_dtype is not None:
                stack.callback(torch.set_default_dtype, torch.get_default_dtype())
                torch.set_default_dtype(dtype_of(call.contract.default_dtype))
            device = call.contract.default_device
            if device not in (None, torch.get_default_device().type):
                stack.enter_context(torch.device(device))
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(filled_memory())
            if self._asserts:
                stack.enter_context(without_assertions())
            if artifact.requirements.groups:
                stack.enter_context(without_other_processes())
            torch.manual_seed(0)
            run = make([held[s] for s in stitched.weights], own, constants, owners)
            return run(*_arguments(call, inputs))


def _stays(condition: Any, side: bool) -> bool:
    """Have a call take the side that a variant was made for, in place of `leaves`."""
    return False


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two results are the same, not-a-numbers included."""
    if one.layout is not torch.strided or other.layout is not torch.strided:
        return one.layout is other.layout
    if (one.dtype, one.shape, one.stride()) != (other.dtype, other.shape, other.stride()):
        return False
    if one.dtype.is_floating_point or one.dtype.is_complex:
        return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    return torch.equal(one, other)


def _group_alone(constant: Any) -> Any:
    """A constant, or a name in place of what stands for a group, which no operator looks at."""
    return "alone" if type(constant) is GroupSlot else constant


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


def _arguments(call: StitchedCall, inputs: Inputs) -> list[Any]:
    contract = call.contract
    made = tensors(contract, inputs)
    given = [made[slot] for slot in contract.given]
    objects = _passed_objects(contract, made)
    return [*(inputs.sizes[dim.name] for dim in contract.axes), *made, *given, *objects]


def _passed_objects(contract: Contract, tensors: Sequence[Any]) -> list[Any]:
    """The containers that a program is given of a call with these tensors."""
    values = (build(p.tree, lambda slot: tensors[slot.index]) for p in contract.parameters)
    pairs = zip(contract.parameters, values, strict=True)
    found = [one for p, value in pairs for one in containers(p.tree, value, p.name)]
    return [found[number][-1] for number in contract.objects]
