"""What a trace depended on that no module of the model says: globals, functions, the environment.

Dynamo guards on these. A program that is called in the process that built it needs no such guards,
since nobody else is told that it is current; one that is found again by another process does.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from msgspec.structs import replace

from hotstart import _torch
from hotstart.capture.names import ways
from hotstart.capture.structure import CONSTANTS, by_key, of_class_code
from hotstart.keys.records import Seen, Step
from hotstart.keys.seen import Look, environment_text
from hotstart.runtime.structure import is_method
from hotstart.tensors import Model, modules, places

_REGISTERED = tuple(("attribute", name) for name in ("_parameters", "_buffers", "_modules"))
_TRACER = "torch._dynamo."
"""What stands there in place of Python's own functions is only run to trace."""

_REGISTRIES = {("transformers.utils.output_capturing", "_CAN_RECORD_REGISTRY")}
"""Global dicts with an entry for every class of model that was made, of which code reads its own:
(module, name)."""


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
    for read in traced.reads:
        value = traced.object_named(read[1])
        if read[0] == "tensor" and id(value) in kept:
            continue  # a weight, which a program takes from the model
        for beginning, one in _starts(traced, read, paths):
            if _counts(one, value) and not of_class_code(beginning, one.steps):
                one = replace(one, steps=by_key(beginning, one.steps))
                found.add(replace(one, text=look.text(one)))
            break
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
        return one.kind != "value" or type(value) not in CONSTANTS
    if one.name.startswith(_TRACER):
        return False
    if (one.name, one.steps[0][1]) in _REGISTRIES:
        return (one.kind != "length" or len(one.steps) > 1) and one.steps[-1][0] != "key"
    given = one.name == "os" or one.name.partition(".")[0] == "torch"
    return one.kind in ("function", "tensor") or not given


def _starts(
    traced: _torch.FullGraph, read: tuple[_torch.Read, str, Any], paths: Mapping[int, str]
) -> Iterator[tuple[Any, Seen]]:
    """Every object that other processes have, too, to go on from, and what was read from there."""
    for start, kind, steps in ways(*read):
        found = traced.object_named(start)
        if isinstance(found, torch.nn.Module) and id(found) in paths:
            yield found, Seen("model", paths[id(found)], steps, kind, "")
        elif isinstance(found, types.ModuleType):
            yield found, Seen("python", found.__name__, steps, kind, "")
        elif start == "G" and steps and not str(steps[0][1]).startswith("__builtins_dict"):
            way: tuple[Step, ...] = (("attribute", steps[0][1]), *steps[1:])
            yield sys.modules.get(traced.home), Seen("python", traced.home, way, kind, "")
