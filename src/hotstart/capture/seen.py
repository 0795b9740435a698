"""What a trace depended on that no module of the model says: globals, functions, the environment.

Dynamo guards on these. A program that is called in the process that built it needs no such guards,
since nobody else is told that it is current; one that is found again by another process does.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Literal

import torch

from hotstart import _torch
from hotstart.capture.structure import ways
from hotstart.keys.records import Seen, Step
from hotstart.keys.seen import environment_text, text_of
from hotstart.objects import Describer
from hotstart.tensors import Model, modules, places

Start = Literal["model", "python", "environment"]
Kind = Literal["value", "length", "class", "function", "tensor"]


_REGISTERED = tuple(("attribute", name) for name in ("_parameters", "_buffers", "_modules"))


def seen(model: Model, traced: _torch.FullGraph) -> tuple[Seen, ...]:
    """What a trace read outside of the model's modules, and of objects that they hold."""
    paths = {id(module): path for path, module in reversed([*modules(model)])}
    describer = Describer()
    found = {
        Seen("environment", name, (), "value", environment_text(name))
        for name in traced.environment
    }
    kept = {id(place.get()) for place in places(model)}
    for kind, name in traced.reads:
        at = _start(traced, name, paths)
        if kind == "tensor" and id(traced.object_named(name)) in kept:
            continue  # a weight, which a program takes from the model
        if at is not None and _counts(kind, *at):
            text = text_of(describer, kind, traced.object_named(name))
            if text is not None:
                found.add(Seen(*at, kind, text))
    return tuple(sorted(found, key=repr))


def _counts(kind: Kind, start: Start, name: str, steps: tuple[Step, ...]) -> bool:
    """Whether something is not known already: from modules' facts, or from torch's version."""
    if start == "model":
        inside = steps and steps[0] not in _REGISTERED
        return bool(inside) and kind in ("class", "function", "tensor")
    given = name == "os" or name.partition(".")[0] == "torch"
    return bool(steps) and (kind in ("function", "tensor") or not given)


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
