"""Writes of a traced call."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.values import storage_of


def was_mutated(tensor: torch.Tensor) -> bool:
    """Tell whether a fake tensor, or a view of it, was written to while tracing."""
    return not tensor.is_inference() and tensor._version > 0


def count_writes(graph: fx.Graph) -> None:
    """Count what operators say they write to as written, in the versions of its fake tensors.

    The fake kernel of an operator of somebody's own need not write, nor say so by a version. That
    of batch normalisation does neither, and its schema does not say that it writes. And what
    `.data` gives has a version of its own, though its memory is that of the tensor.
    """
    for node in graph.nodes:
        for value in (*written_arguments(node), *learnt_statistics(node)):
            for written in _nodes_in(value):
                tensor = written.meta.get("example_value")
                if isinstance(tensor, torch.Tensor) and not tensor.is_inference():
                    torch.autograd.graph.increment_version(tensor)
    _count_writes_through_data(graph)


def _count_writes_through_data(graph: fx.Graph) -> None:
    """Count writes to memory of inputs that the version of none of them tells of."""
    written: set[int] = set()
    inputs: dict[int, list[torch.Tensor]] = {}
    for node in graph.nodes:
        tensor = node.meta.get("example_value")
        if not isinstance(tensor, torch.Tensor) or tensor.is_inference():
            continue
        if node.op == "placeholder":
            inputs.setdefault(storage_of(tensor), []).append(tensor)
        elif was_mutated(tensor):
            written.add(storage_of(tensor))
    for storage in written & inputs.keys():
        if not any(map(was_mutated, inputs[storage])):
            torch.autograd.graph.increment_version(inputs[storage])


def memory_written(graph: fx.Graph) -> set[int]:
    """The storages that nodes of a graph have written to by now, as far as it is traced."""
    found: set[int] = set()
    for node in graph.nodes:
        example = node.meta.get("example_value")
        if isinstance(example, torch.Tensor) and was_mutated(example):
            found.add(storage_of(example))
        for argument in (*written_arguments(node), *learnt_statistics(node)):
            found |= {storage_of(each.meta["example_value"]) for each in _nodes_in(argument)}
    return found


def written_arguments(node: fx.Node) -> Iterator[fx.node.Argument]:
    """Yield the arguments of a node that its operator writes to, by the schema of any overload."""
    target: Any = node.target
    overloads: list[Any] = [target] if isinstance(target, torch._ops.OpOverload) else []
    if isinstance(target, types.BuiltinFunctionType) and target.__name__.startswith("_foreach_"):
        target = getattr(torch.ops.aten, target.__name__, None)  # which counts no version
    if isinstance(target, torch._ops.OpOverloadPacket):
        overloads = [getattr(target, name) for name in target.overloads()]
    for overload in overloads:
        for position, argument in enumerate(overload._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            if argument.name in node.kwargs:
                yield node.kwargs[argument.name]
            elif not argument.kwarg_only and position < len(node.args):
                yield node.args[position]


_NORMALISATIONS = {
    torch.nn.functional.batch_norm: "training",
    torch.nn.functional.instance_norm: "use_input_stats",
}
"""Functions that write running statistics, with the argument that says so."""


def learnt_statistics(node: fx.Node) -> Iterator[fx.node.Argument]:
    """Yield the running statistics that a normalisation in training writes to."""
    if node.op != "call_function" or node.target not in _NORMALISATIONS:
        return
    signature = inspect.signature(node.target)
    bound = signature.bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    if bound.arguments[_NORMALISATIONS[node.target]]:
        yield bound.arguments["running_mean"]
        yield bound.arguments["running_var"]


def _nodes_in(value: fx.node.Argument) -> list[fx.Node]:
    """List the nodes in an argument, which may be a list of them."""
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    return found
