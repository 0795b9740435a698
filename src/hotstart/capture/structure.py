"""What forward reads of its modules besides tensors, from the guards that Dynamo put.

Classes, constants and lengths are part of the compiled code as much as operators are: another
activation, another epsilon or one more layer would be another program with the same weights.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from hotstart import _torch
from hotstart.ir import Fact, ModuleKind
from hotstart.keys.records import Step
from hotstart.runtime.structure import Look, class_name, follow, is_method
from hotstart.tensors import Model, modules

_CONSTANTS = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)
_TRAINING: tuple[Step, ...] = (("attribute", "training"),)


def structure(model: Model, traced: _torch.FullGraph) -> dict[str, ModuleKind]:
    """What was read of each module, by path."""
    paths = {id(module): path for path, module in reversed([*modules(model)])}
    look = Look()
    found: dict[str, tuple[torch.nn.Module, dict[tuple[Any, ...], Fact]]] = {}
    for read, name, key in traced.reads:
        place = _place(traced, name, paths)
        if place is None:
            continue
        path, module, way = place
        _, facts = found.setdefault(path, (module, {}))
        kind, steps = about(read, way, key)
        if kind != "tensor" and kind != "unknown" and _counts(kind, steps, module):
            with contextlib.suppress(AttributeError, LookupError, TypeError):
                facts[kind, steps] = Fact(steps, kind, look.read(kind, steps, module))
    return {
        path: ModuleKind(
            class_name(type(module)), tuple(sorted(facts.values(), key=repr)), look.own_code(module)
        )
        for path, (module, facts) in found.items()
    }


def about(
    kind: _torch.Read, way: tuple[Step, ...], key: object
) -> tuple[_torch.Read, tuple[Step, ...]]:
    """What a read is about: with the key that was looked up as its last step."""
    if key is None or kind not in ("attribute", "own", "contains"):
        return kind, way
    if not isinstance(key, str | int):
        return "keys", way
    return kind, (*way, ("item" if kind == "contains" else "attribute", key))


def merged(all_found: Iterable[Mapping[str, ModuleKind]]) -> dict[str, ModuleKind]:
    """What several graphs of a model read of its modules."""
    made: dict[str, ModuleKind] = {}
    for found in all_found:
        for path, kind in found.items():
            known = made.get(path, kind)
            facts = {repr(fact): fact for fact in (*known.facts, *kind.facts)}
            every = tuple(facts[text] for text in sorted(facts))
            made[path] = ModuleKind(kind.cls, every, kind.own)
    return made


def _counts(kind: str, steps: tuple[Step, ...], module: torch.nn.Module) -> bool:
    """Whether what was read is no tensor, and not known otherwise."""
    if kind == "own" and len(steps) == 1:
        return not is_method(type(module), str(steps[0][1]))
    if kind in ("attribute", "own", "contains"):
        return True
    try:
        value = follow(module, steps)
    except (AttributeError, LookupError, TypeError):
        return False
    match kind:
        case "length" | "keys":
            return hasattr(value, "__len__")
        case "value":
            return bool(steps) and type(value) in _CONSTANTS and steps != _TRAINING
        case "class":
            return bool(steps) and type(value).__module__ != "builtins"
    return hasattr(value, "__qualname__")


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
