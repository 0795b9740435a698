"""Describe the example calls of a model, once for their key in a cache and for their traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hotstart import faults
from hotstart.calls import Call
from hotstart.capture.arguments import Arguments, describe_arguments
from hotstart.errors import CaptureError, OptionsError
from hotstart.model import Model, method_of, modules
from hotstart.options import Options
from hotstart.records.nested import children
from hotstart.records.trees import opened


@dataclass(frozen=True)
class DescribedCall:
    """A call of a model, described.

    Attributes:
        name: as it was given.
        call: as it was given.
        target: what of the model is called.
        arguments: what it is called with.
    """

    name: str
    call: Call
    target: Model
    arguments: Arguments


def passed_objects(call: Call) -> dict[int, tuple[str, object]]:
    """The lists, dicts and objects that a call is passed, each with its name, by identity."""
    found: dict[int, tuple[str, object]] = {}
    named = [(f"args[{number}]", value) for number, value in enumerate(call.args)]
    waiting: list[tuple[str, Any]] = [*named, *(call.kwargs or {}).items()]
    while waiting:
        name, value = waiting.pop()
        container = None if id(value) in found else opened(value)
        if container is None:
            continue
        if not isinstance(value, tuple):
            found[id(value)] = (name, value)
        waiting += [(child.path, child.value) for child in children(container, name)]
    return found


def describe_calls(
    model: Model, calls: Mapping[str, Call], options: Options
) -> list[DescribedCall]:
    """Describe example calls, by name, on the device that options name.

    Raises:
        CaptureError: a module is scripted, or arguments do not fit a signature, or hold something
            unsupported.
        OptionsError: there is no such method or device, or `dynamic_shapes` does not fit.
    """
    device = device_of(options)
    with faults.typed(_not_described):
        _refuse_scripted(model)
        return [_described(model, name, call, device) for name, call in calls.items()]


def device_of(options: Options) -> torch.device:
    """The device that options name.

    Raises:
        OptionsError: torch knows none of that name.
    """
    try:
        return torch.device(options.device)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise OptionsError(f"device: got {options.device!r}: {reason}") from None


def _described(model: Model, name: str, call: Call, device: torch.device) -> DescribedCall:
    try:
        target = method_of(model, call.method)
    except AttributeError as error:
        raise OptionsError(f"calls[{name!r}]: method {call.method!r}: {error}") from None
    arguments = describe_arguments(
        target, call.args, call.kwargs or {}, call.dynamic_shapes, device
    )
    return DescribedCall(name, call, target, arguments)


def _refuse_scripted(model: Model) -> None:
    for path, module in modules(model):
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError(
                f"{path or 'model'}: got a torch.jit.ScriptModule, whose Python code is gone. Pass "
                "the module that was scripted or traced."
            )


def _not_described(reason: str) -> CaptureError:
    return CaptureError(
        f"the model and its example inputs cannot be described: {reason}. Pass plain tensors and "
        "constants as args and kwargs; if they are, please report it."
    )
