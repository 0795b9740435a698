"""The key of a program: everything that decides how it is compiled and can be known untraced.

What forward reads of modules' attributes, of globals and of the environment is not in the key,
since only a trace tells. It is kept beside a program that was traced, and compared before that is
used: several programs may have one key.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import msgspec
import torch

from hotstart import faults
from hotstart._torch.processes.settings import compile_state
from hotstart._torch.running.hooks import global_hooks
from hotstart.artifact import fingerprint
from hotstart.artifact.surroundings import compile_variables, version
from hotstart.capture.described import DescribedCall
from hotstart.guards.functions import class_name
from hotstart.guards.objects import Describer, Unknowable
from hotstart.guards.one_line import tensor_text
from hotstart.model import Model, modules
from hotstart.options import Options
from hotstart.partition.operator_names import name_given
from hotstart.partition.tokens import is_portable, setting_token
from hotstart.records.guards import ProgramKey

_HOST = ("python", "torch", "torch_build", "platform")
"""What else decides where a program fits is compared when it is loaded."""

_CALLABLE = (types.FunctionType, types.MethodType, functools.partial)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")

_UNBUILT = {"on_miss", "debug_dir", "jobs", "on_event"}
"""Options that do not decide what is built."""


def make_key(
    model: Model,
    calls: Iterable[DescribedCall],
    split_on: Any,
    options: Options,
    extra_key: str,
) -> ProgramKey:
    """The key of what `hotstart.compile` would make.

    Raises:
        Unknowable: nothing can be said of something that hangs on the model, that an example call
            passes, or that is a setting.
    """
    describer = Describer()  # methods besides forward are compared as far as they ran
    with faults.typed(_unknowable):
        named = [
            *here().items(),
            *_settings(split_on, options),
            ("extra_key", repr(extra_key)),
            *_model(describer, model),
            *(part for call in calls for part in _call(describer, call)),
        ]
    parts: dict[str, str] = {}
    for name, text in named:  # a parameter may have the name of something else
        parts[name] = f"{parts[name]}; {text}" if name in parts else text
    hashed = hashlib.blake2b(msgspec.json.encode(sorted(parts.items())), digest_size=16)
    return ProgramKey(hashed.hexdigest(), parts)


def _unknowable(reason: str) -> Unknowable:
    return Unknowable(f"the key of the program: expected values that can be said, found {reason}")


# --- this process ---------------------------------------------------------------------------------


def here() -> dict[str, str]:
    """Name all of this process that decides how a program is compiled."""
    host = fingerprint.host()
    return {
        "hotstart": version(host["hotstart"]),
        **{name: str(host[name]) for name in _HOST},
        "threads": str(torch.get_num_threads()),
        **compile_state(),
        **{f"environment {n}": repr(value) for n, value in compile_variables().items()},
    }


def _settings(split_on: Any, options: Options) -> Iterator[tuple[str, str]]:
    """Every option that decides what is built, those of a new release included."""
    for option in fields(options):
        if option.name not in _UNBUILT | {"inductor"}:
            yield f"options.{option.name}", str(getattr(options, option.name))
    for name, value in sorted(options.inductor.items()):
        token = setting_token(value)
        if not is_portable(token):
            raise Unknowable(
                f"options.inductor.{name}: expected a setting that is the same in every process, "
                f"found {value!r}. Give a custom pass a uuid()."
            )
        yield f"options.inductor.{name}", repr(token)
    wanted = split_on if isinstance(split_on, list | tuple) else [split_on]
    yield "split_on", ", ".join(map(_operator, wanted))


def _operator(given: Any) -> str:
    try:
        return name_given(given)
    except TypeError:  # the cut says what is wrong with it
        return repr(given)


# --- the model ------------------------------------------------------------------------------------


def _model(describer: Describer, model: Model) -> Iterator[tuple[str, str]]:
    """Classes, modes, tensors, hooks and patched methods of a model's modules, by path."""
    if isinstance(getattr(model, "__self__", None), torch.nn.Module):
        yield "model", describer.member_text(model)  # its module's attributes are seen if read
    elif not isinstance(model, torch.nn.Module):
        yield from describer.describe("model", model)
    for hook, held in global_hooks().items():
        yield from describer.describe(f"every module's {hook}", [*held.values()])
    names: dict[int, str] = {}
    for path, module in modules(model):
        first = names.setdefault(id(module), path)
        if first != path:
            yield f"model {path}", f"is {first}"
            continue
        mode = "training" if module.training else "evaluation"
        forward = describer.method_text(type(module), "forward")
        yield f"model {path}", f"{class_name(type(module))} {forward} in {mode}"
        for name, value in vars(module).items():
            if isinstance(value, _CALLABLE):
                yield from describer.describe(f"model {path}.{name}", value)
            elif name in _HOOKS and value:  # their keys are numbers of this process
                yield from describer.describe(f"model {path}.{name}", [*value.values()])
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                own = f"{path}.{name}"
                first = names.setdefault(id(tensor), own)
                yield f"model {own}", tensor_text(tensor) if first == own else f"is {first}"


# --- calls ----------------------------------------------------------------------------------------


def _call(describer: Describer, described: DescribedCall) -> Iterator[tuple[str, str]]:
    label = f"call {described.name}".rstrip()
    arguments = described.arguments
    yield f"{label} method", described.call.method
    yield f"{label} by position", str(arguments.by_position)  # hooks see the difference
    for parameter in arguments.parameters:
        yield from describer.describe(f"{label} {parameter.name}", parameter)
    for spec in arguments.tensors:
        shape, order = list(spec.shape), list(spec.dim_order)
        yield f"{label} {spec.path}", f"{spec.dtype} {shape} {order} {spec.device}"
    for dim in arguments.axes:
        ways = ", ".join(map(str, dim.choices))
        yield f"{label} axis {dim.name}", f"{ways} by {arguments.example_sizes[dim.name]}"
