"""What forward reads of its modules besides tensors, from the guards that Dynamo put.

Classes, constants and lengths are part of the compiled code as much as operators are: another
activation, another epsilon or one more layer would be another program with the same weights.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from hotstart import _torch
from hotstart.ir import Fact, ModuleKind
from hotstart.keys.records import Step
from hotstart.objects import Describer
from hotstart.runtime.structure import class_name, follow
from hotstart.tensors import Model, modules

_CONSTANTS = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)


def structure(model: Model, traced: _torch.FullGraph) -> dict[str, ModuleKind]:
    """What was read of each module, by path."""
    paths = {id(module): path for path, module in reversed([*modules(model)])}
    found: dict[str, tuple[str, dict[tuple[Any, ...], Fact]]] = {}
    for kind, name, _ in traced.reads:
        place = _place(traced, name, paths)
        if place is None:
            continue
        path, module, steps = place
        _, facts = found.setdefault(path, (class_name(type(module)), {}))
        fact = _fact(kind, steps, module)
        if fact is not None and steps != (("attribute", "training"),):
            facts[kind, steps] = fact
    return {
        path: ModuleKind(cls, tuple(sorted(facts.values(), key=repr)))
        for path, (cls, facts) in found.items()
    }


def merged(all_found: Iterable[Mapping[str, ModuleKind]]) -> dict[str, ModuleKind]:
    """What several graphs of a model read of its modules."""
    made: dict[str, ModuleKind] = {}
    for found in all_found:
        for path, kind in found.items():
            known = made.get(path, kind)
            facts = {repr(fact): fact for fact in (*known.facts, *kind.facts)}
            made[path] = ModuleKind(kind.cls, tuple(facts[text] for text in sorted(facts)))
    return made


def _fact(kind: str, steps: tuple[Step, ...], module: torch.nn.Module) -> Fact | None:
    try:
        value = follow(module, steps)
    except (AttributeError, LookupError, TypeError):
        return None  # found by Dynamo in another way than by reading it
    if kind == "length":
        return Fact(steps, "length", len(value)) if hasattr(value, "__len__") else None
    if kind == "value" and steps and type(value) in _CONSTANTS:
        return Fact(steps, "value", value)
    if kind == "class" and steps and type(value).__module__ != "builtins":
        return Fact(steps, "class", class_name(type(value)))
    if kind == "function" and hasattr(value, "__qualname__"):
        return Fact(steps, "function", Describer().function_text(value))
    return None


def _place(
    traced: _torch.FullGraph, name: str, paths: Mapping[int, str]
) -> tuple[str, torch.nn.Module, tuple[Step, ...]] | None:
    """The last module on the way to what a name stands for, and the steps from there."""
    for start, steps in ways(name):
        module = traced.object_named(start)
        if isinstance(module, torch.nn.Module) and id(module) in paths:
            return paths[id(module)], module, steps
    return None


def ways(name: str) -> Iterator[tuple[str, tuple[Step, ...]]]:
    """Every start of one of Dynamo's names, from the longest on, with the steps that are left."""
    try:
        node = ast.parse(name, mode="eval").body
    except SyntaxError:
        return
    steps: tuple[Step, ...] = ()
    while True:
        yield ast.unparse(node), steps
        match node:
            case ast.Attribute(value=inner, attr=attribute):
                steps = (("attribute", attribute), *steps)
            case ast.Subscript(value=inner, slice=ast.Constant(value=str() | int() as key)):
                steps = (("item", key), *steps)
            case _:
                return
        node = inner
