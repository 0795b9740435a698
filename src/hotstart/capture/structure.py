"""What forward reads of its modules besides tensors, from the guards that Dynamo put.

Classes, constants and lengths are part of the compiled code as much as operators are: another
activation, another epsilon or one more layer would be another program with the same weights.
"""

from __future__ import annotations

import contextlib
import enum
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from hotstart import _torch
from hotstart.capture.names import ways
from hotstart.ir import Fact, FactKind, ModuleKind
from hotstart.keys.records import Kind, Step
from hotstart.runtime.structure import Look, class_name, follow, is_method
from hotstart.tensors import Model, modules

CONSTANTS = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)
"""What a fact can hold, and tuples of these."""

_DATA = (*CONSTANTS, bytes, range, slice, enum.Enum, Collection)
"""What is compared by what it holds; other objects are compared by their class."""

_CODE = (types.FunctionType, types.MethodType, property, classmethod, staticmethod)
_TRAINING: tuple[Step, ...] = (("attribute", "training"),)


def structure(model: Model, traced: _torch.FullGraph) -> dict[str, ModuleKind]:
    """What was read of each module, by path."""
    paths = {id(module): path for path, module in reversed([*modules(model)])}
    look = Look()
    found: dict[str, tuple[torch.nn.Module, dict[tuple[Any, ...], Fact]]] = {}
    for read in traced.reads:
        place = _place(traced, read, paths)
        if place is None:
            continue
        path, module, kind, steps = place
        _, facts = found.setdefault(path, (module, {}))
        with contextlib.suppress(AttributeError, LookupError, TypeError):
            compared = _compared(kind, steps, module)
            steps = by_key(module, steps)
            if compared is not None:
                facts[compared, steps] = Fact(steps, compared, look.read(compared, steps, module))
    return {
        path: ModuleKind(
            class_name(type(module)), tuple(sorted(facts.values(), key=repr)), look.own_code(module)
        )
        for path, (module, facts) in found.items()
    }


def by_key(start: object, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same steps, with values of dicts by their keys where these are texts.

    Numbers as keys may be of this process only, as those of hooks are.
    """
    made: tuple[Step, ...] = ()
    for how, name in steps:
        step: Step = (how, name)
        if how == "entry":
            with contextlib.suppress(AttributeError, LookupError, TypeError):
                key = follow(start, (*made, ("key", name)))
                step = ("item", key) if type(key) is str else step
        made = (*made, step)
    return made


def of_class_code(start: object, steps: tuple[Step, ...]) -> bool:
    """Whether steps lead to a function of a class, or into one: it is known with the class."""
    classes = False
    for number, (how, _) in enumerate(steps, start=1):
        classes = classes or how == "class"
        with contextlib.suppress(AttributeError, LookupError, TypeError):
            if classes and isinstance(follow(start, steps[:number]), _CODE):
                return True
    return False


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


def _compared(kind: Kind, steps: tuple[Step, ...], module: torch.nn.Module) -> FactKind | None:
    """What of a thing that was read is to be compared; None if it is a tensor, or known otherwise.

    Raises:
        AttributeError, LookupError, TypeError: it is not there any more.
    """
    if kind == "tensor" or kind == "unknown":
        return None
    if kind == "own" and len(steps) == 1:
        return None if is_method(type(module), str(steps[0][1])) else kind
    if kind == "attribute" or kind == "own" or kind == "contains":
        return None if of_class_code(module, steps[:-1]) else kind
    value = follow(module, steps)
    if of_class_code(module, steps):
        return None
    match kind:
        case "length" | "keys":
            counts = hasattr(value, "__len__")
        case "class":
            counts = bool(steps) and type(value).__module__ != "builtins"
            counts = counts and not _torch.is_fake(value)  # stands for a weight on meta
        case "function":
            counts = hasattr(value, "__qualname__")
        case "inside":
            counts = bool(steps)
        case _:
            if not _is_constant(value):
                kind = "inside"
            counts = bool(steps) and isinstance(value, _DATA) and steps != _TRAINING
            counts = counts and not isinstance(value, torch.nn.Module | torch.Tensor | type)
    return kind if counts else None


def _is_constant(value: object) -> bool:
    """Whether a fact can hold it."""
    if type(value) is tuple:
        return all(map(_is_constant, value))
    return type(value) in CONSTANTS


def _place(
    traced: _torch.FullGraph, read: tuple[_torch.Read, str, Any], paths: Mapping[int, str]
) -> tuple[str, torch.nn.Module, Kind, tuple[Step, ...]] | None:
    """The last module on the way to something, and what of it was read after which steps."""
    for start, kind, steps in ways(*read):
        module = traced.object_named(start)
        if isinstance(module, torch.nn.Module) and id(module) in paths:
            return paths[id(module)], module, kind, steps
    return None
