"""Check tensor arguments in generated entries, and run a variant on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hotstart._torch.running.modes import (
    autocast_check,
    autocast_state,
    function_mode_count,
    set_grad_enabled,
)
from hotstart.dtypes import dtype_of
from hotstart.errors import ContractError
from hotstart.model import Model
from hotstart.records.contract import Contract, TensorSpec
from hotstart.records.nested import same_constant
from hotstart.runtime.code.identifiers import Scope
from hotstart.runtime.entry.argument_kind import ArgumentKind, Looked, Served
from hotstart.runtime.entry.copied_back import Relayout, copied, copied_back
from hotstart.runtime.entry.entry_check import Check, Explain, Found
from hotstart.runtime.entry.refusal_words import in_words, left_out, to_fit
from hotstart.runtime.tensors import TENSOR_TYPES, TensorMemory, describe_tensor


class TensorArguments(TensorMemory, ArgumentKind):
    """Arguments that are tensors of torch's.

    Args:
        model: for its `training` flag; None where there is none.
        relayout: copies an argument into the compiled layout.
    """

    singletons = (torch.dtype, torch.layout, torch.memory_format)
    same_constant = staticmethod(same_constant)
    make_one = "make a tensor of it, as by torch.as_tensor"

    def __init__(self, model: Model | None, relayout: Relayout) -> None:
        self._model: Any = model
        self._relayout = relayout

    @staticmethod
    def describe(value: Any) -> str:
        """Describe any value that a call passed in a few words."""
        return describe_tensor(value) if isinstance(value, torch.Tensor) else in_words(value)

    def state(self, contract: Contract, scope: Scope) -> Iterator[Check]:
        """Check that the model, if there is one, and torch are in the modes of the build."""
        model, training, autocast = self._model, contract.training, contract.autocast

        def other_mode(_: Found) -> ContractError:
            return ContractError.other_mode("", model.training)

        def other_autocast(_: Found) -> ContractError:
            now, then = map(_autocast_text, (autocast_state(), autocast))
            advice = "compile the model inside the autocast region it is called in"
            return ContractError("autocast", now, then, advice)

        def other_device(_: Found) -> ContractError:
            now, advice = str(torch.get_default_device()), "call it outside of torch.device(...)"
            return ContractError("default device", now, str(contract.default_device), advice)

        def other_dtype(_: Found) -> ContractError:
            now, then = str(torch.get_default_dtype()), f"torch.{contract.default_dtype}"
            advice = "compile the model under the default dtype it is called under"
            return ContractError("default dtype", now, then, advice)

        if training is not None and model is not None:
            yield Check(f"{scope.refer('model', model)}.training is {training}", other_mode)
        if autocast:
            state = scope.refer("autocast_state", autocast_state)
            expected = scope.constant(autocast, "autocast")
            yield Check(f"{state}() == {expected}", other_autocast)
        else:
            is_on = scope.refer("autocast_is_on", autocast_check())
            yield Check(f"not {is_on}()", other_autocast)
        if contract.default_dtype is not None:
            default = scope.refer("default_dtype", torch.get_default_dtype)
            wanted = scope.refer(contract.default_dtype, dtype_of(contract.default_dtype))
            yield Check(f"{default}() is {wanted}", other_dtype)
        if contract.default_device is not None:
            default = scope.refer("default_device", torch.get_default_device)
            test = f"{default}().type == {contract.default_device!r}"
            if contract.default_device == "cpu":
                modes = scope.refer("function_modes", function_mode_count())
                test = f"(not {modes}() or {test})"
            yield Check(test, other_device)

    def looked_at(self, spec: TensorSpec, name: str, scope: Scope) -> Looked:
        """Look at a tensor: its class, dtype, device, and whether it is a plain one."""

        def other(advice: str = "") -> Explain:
            def explain(found: Found) -> ContractError:
                value = found[name]
                hint = advice or _to_fit(spec, value)
                return ContractError(spec.path, self.describe(value), str(spec), hint)

            return explain

        dtype, device = dtype_of(spec.dtype), torch.device(spec.device)
        types = [scope.refer(cls.__name__, cls) for cls in TENSOR_TYPES]
        kinds = " or ".join(f"{name}.__class__ is {cls}" for cls in types)
        checks = [
            Check(f"({kinds})", other()),
            Check(f"{name}.dtype is {_constant(dtype, scope)}", other()),
            Check(
                f"{name}.is_cpu"
                if device.type == "cpu"
                else f"{name}.device == {scope.constant(device, 'device')}",
                other(f"move it, as by .to({spec.device!r})"),
            ),
            Check(
                f"{name}.layout is {_constant(torch.strided, scope)}",
                other("call .to_dense() first"),
            ),
        ]
        if dtype.is_complex:
            checks.append(Check(f"not {name}.is_conj()", other("call .resolve_conj() first")))
        if dtype.is_floating_point or dtype.is_complex:
            checks.append(Check(f"not {name}.is_neg()", other("call .resolve_neg() first")))
        return Looked(name, checks, other())

    @staticmethod
    def writable(_: TensorSpec, __: str) -> Sequence[Check]:
        """Check nothing: every tensor can be written to."""
        return ()

    def run(self, served: Served) -> Iterator[str]:
        """Call the variant's function without autograd, and copy mutations of copies back."""
        contract, scope, tensors, sizes = (
            served.contract, served.scope, served.tensors, served.sizes,
        )  # fmt: skip
        result = scope.new("result")
        # New names for the copies; the old ones still refer to the caller's tensors.
        given = [(scope.new(f"{tensors[n]}_as_given"), tensors[n]) for n in contract.given]
        written = [(scope.new(f"{tensors[n]}_written"), tensors[n]) for n in contract.mutated_args]
        yield from (f"{kept} = {tensor}" for kept, tensor in (*given, *written))
        for spec, name in zip(contract.tensors, tensors, strict=True):
            yield from copied(spec, name, scope, sizes, self._relayout)
        axes = [sizes[dim.name] for dim in contract.axes]
        arguments = ", ".join([*axes, *tensors, *(kept for kept, _ in given), *served.objects])
        answer = [f"return {served.function}({arguments})"]
        if written:
            answer = [f"{result} = {served.function}({arguments})", *copied_back(written)]
            answer.append(f"return {result}")
        answer = [f"    {line}" for line in answer]
        enabled = scope.refer("is_grad_enabled", torch.is_grad_enabled)
        enable = scope.refer("set_grad_enabled", set_grad_enabled())
        yield from (f"if not {enabled}():", *answer, f"{enable}(False)")
        yield from ("try:", *answer, "finally:", f"    {enable}(True)")


def _to_fit(spec: TensorSpec, value: Any) -> str:
    """Advise on a value in the place of a tensor."""
    if type(value) in TENSOR_TYPES:
        return to_fit(spec, str(value.dtype).removeprefix("torch."), value.shape)
    if isinstance(value, torch.Tensor):
        return "pass a plain tensor"
    return left_out(value) or TensorArguments.make_one


def _constant(value: torch.dtype | torch.layout, scope: Scope) -> str:
    """A name for a constant of torch."""
    return scope.refer(str(value).removeprefix("torch."), value)


def _autocast_text(state: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{kind} to torch.{dtype}" for kind, dtype in state) or "off"
