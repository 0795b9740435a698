"""What a call returns and which attributes it replaces, found by replaying Dynamo's bytecode.

Dynamo generates bytecode that calls the graph and builds the model's own result from what the
graph returns. It is run here once with stand-ins for the graph's outputs; where they end up in
the result is the structure of the result.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hotstart._torch import FullGraph
from hotstart.errors import CaptureError
from hotstart.ir import Slot, Tree
from hotstart.tensors import Model, modules
from hotstart.trees import NotATree, describe

from hotstart.capture.weights import WeightTable


@dataclass(frozen=True)
class BufferUpdate:
    """An attribute of a module that a call replaces, as BatchNorm's counter does in training.

    Attributes:
        owner: path of the module.
        name: the attribute.
        value: what it is set to.
    """

    owner: str
    name: str
    value: Tree


class _Size(int):
    """Stands in for an integer the graph returns; recognised by identity."""


def describe_outputs(
    model: Model,
    traced: FullGraph,
    returned: Sequence[str | None],
    tensors: Sequence[torch.Tensor],
    weights: WeightTable,
) -> tuple[Tree, tuple[BufferUpdate, ...]]:
    """The tree a call returns, and the attributes it replaces.

    Args:
        model: the model that was traced; its attributes are put back as they were.
        traced: what Dynamo made of it.
        returned: for each output of the graph, the expression of an integer, or None for a tensor.
        tensors: the tensor arguments it was traced with.
        weights: the table of tensors the graph reads.

    Raises:
        CaptureError: the result holds something that cannot be rebuilt, or the call changes Python
            state other than attributes that hold tensors.
    """
    stand_ins: list[Any] = [torch.empty(0) if e is None else _Size(7) for e in returned]
    numbers = {id(stand_in): index for index, stand_in in enumerate(stand_ins)}
    arguments = {id(tensor): index for index, tensor in enumerate(tensors)}

    def leaf(path: str, value: Any) -> Tree | None:
        index = numbers.get(id(value))
        if index is not None:
            expr = returned[index]
            return Slot("out", index) if expr is None else Slot("size", index, expr)
        if not isinstance(value, torch.Tensor):
            return None
        if id(value) in arguments:
            return Slot("arg", arguments[id(value)])
        return Slot("weight", weights.slot(value, path))

    before = _attributes(model)
    others = _other_state(model, traced)
    result = traced.replay(lambda *inputs: tuple(stand_ins))
    changed = _changes(before, _attributes(model))
    _restore(before, model)
    if others != _other_state(model, traced):
        names = ", ".join(name for name, state in others.items())
        raise CaptureError(
            f"forward changes Python state that outlives the call ({names}). A program computes "
            "tensors only: move the change out of forward."
        )
    updates = []
    for owner, name, value in changed:
        tree = _tree(value, f"{owner}.{name}" if owner else name, leaf)
        if not isinstance(tree, Slot) or tree.kind == "size":
            raise CaptureError(
                f"forward sets {owner or 'the model'}.{name} to {value!r}, which is no tensor. "
                "A program computes tensors only: move the change out of forward."
            )
        updates.append(BufferUpdate(owner, name, tree))
    return _tree(result, "the result", leaf), tuple(updates)


def _tree(value: Any, path: str, leaf: Callable[[str, Any], Tree | None]) -> Tree:
    try:
        return describe(value, path, leaf)
    except NotATree as error:
        raise CaptureError(
            f"{error.path} is a {type(error.value).__qualname__}, which cannot be rebuilt from "
            "tensors. Return tensors, constants, tuples, lists, dicts, dataclasses, or types "
            "registered with torch.utils._pytree."
        ) from error


_Attributes = dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]


def _attributes(model: Model) -> _Attributes:
    return {
        path: (dict(vars(module)), dict(module._parameters), dict(module._buffers))
        for path, module in modules(model)
    }


def _changes(before: _Attributes, after: _Attributes) -> Iterator[tuple[str, str, Any]]:
    for path, kinds in after.items():
        for old, new in zip(before[path], kinds, strict=True):
            for name, value in new.items():
                if name not in old or old[name] is not value:
                    yield path, name, value


def _restore(before: _Attributes, model: Model) -> None:
    for path, module in modules(model):
        attributes, parameters, buffers = before[path]
        for live, saved in (
            (vars(module), attributes),
            (module._parameters, parameters),
            (module._buffers, buffers),
        ):
            for name in [n for n in live if n not in saved]:
                del live[name]
            for name, value in saved.items():
                if live.get(name) is not value:
                    live[name] = value


def _other_state(model: Model, traced: FullGraph) -> dict[str, Any]:
    """What objects hold that the bytecode changes and that are not modules of the model.

    A change that is undone before forward returns, such as a context variable's, does not count.
    """
    compared = {
        id(mapping)
        for _, module in modules(model)
        for mapping in (module, vars(module), module._parameters, module._buffers)
    }
    found = {name: traced.object_named(name) for name in traced.side_effects}
    return {name: _state(obj) for name, obj in found.items() if id(obj) not in compared}


def _state(obj: Any) -> object:
    if isinstance(obj, contextvars.ContextVar):
        return id(obj.get(None))
    if isinstance(obj, dict):
        return [(key, id(value)) for key, value in obj.items()]
    if isinstance(obj, list | set | tuple):
        return [id(value) for value in obj]
    if hasattr(obj, "__dict__"):
        return [(key, id(value)) for key, value in vars(obj).items()]
    return object()  # equal to nothing: what cannot be compared counts as changed
