"""What a trace depended on that no module of the model says: globals, functions, the environment.

Dynamo guards on these. A program that is called in the process that built it needs no such guards,
since nobody else is told that it is current; one that is found again by another process does.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Literal

import torch
from msgspec.structs import replace

from hotstart import _torch
from hotstart.capture.structure import about, ways
from hotstart.keys.records import Seen, Step
from hotstart.keys.seen import Look, environment_text
from hotstart.runtime.structure import is_method
from hotstart.tensors import Model, modules, places

Start = Literal["model", "python", "environment"]

_REGISTERED = tuple(("attribute", name) for name in ("_parameters", "_buffers", "_modules"))
_TRACER = "torch._dynamo."
"""What stands there in place of Python's own functions is only run to trace."""

_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)


def seen(model: Model, traced: _torch.FullGraph) -> tuple[Seen, ...]:
    """What a trace read outside of the model's modules, and of objects that they hold.

    What nothing can be said of has no text: a program that depends on it cannot be found again.
    """
    paths = {id(module): path for path, module in reversed([*modules(model)])}
    kept = {id(place.get()) for place in places(model)}
    look = Look(model)
    found = {
        Seen("environment", name, (), "value", environment_text(name))
        for name in traced.environment
    }
    for kind, name, key in traced.reads:
        value = traced.object_named(name)
        if kind == "tensor" and id(value) in kept:
            continue  # a weight, which a program takes from the model
        at = _start(traced, name, paths)
        if at is None:
            continue
        start, where, way = at
        what, steps = about(kind, way, key)
        one = Seen(start, where, steps, what, "")
        if _counts(one, value):
            found.add(replace(one, text=look.text(one)))
    return tuple(sorted(found, key=repr))


def _counts(one: Seen, value: object) -> bool:
    """Whether something is not known already: from modules' facts, or from torch's version."""
    if not one.steps:
        return False
    if one.start == "model":
        if one.steps[0] in _REGISTERED or one.kind == "length":
            return False
        if one.kind == "own" and len(one.steps) == 1:
            return not is_method(type(value), str(one.steps[0][1]))
        return one.kind != "value" or type(value) not in _PLAIN
    if one.name.startswith(_TRACER):
        return False
    given = one.name == "os" or one.name.partition(".")[0] == "torch"
    return one.kind in ("function", "tensor") or not given


def _start(
    traced: _torch.FullGraph, name: str, paths: Mapping[int, str]
) -> tuple[Start, str, tuple[Step, ...]] | None:
    """Where other processes start to find what a name stands for, and the steps from there."""
    for start, steps in ways(name):
        found = traced.object_named(start)
        if isinstance(found, torch.nn.Module) and id(found) in paths:
            return "model", paths[id(found)], steps
        if isinstance(found, types.ModuleType):
            return "python", found.__name__, steps
        if start == "G" and steps and not str(steps[0][1]).startswith("__builtins_dict"):
            return "python", traced.home, (("attribute", steps[0][1]), *steps[1:])
    return None
