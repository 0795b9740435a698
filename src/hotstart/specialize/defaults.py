"""Find out if a graph depends on torch's default dtype or device, which no call passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart.capture.captured import Captured, example_of, tensors_in

_OWN_DTYPE = {"float", "double", "half", "bfloat16", "cfloat", "cdouble", "chalf"}
"""Methods whose name is the dtype of what they return."""


def reads_default_dtype(graph: Captured) -> bool:
    """Tell if a node makes inexact numbers of a dtype that neither it nor a tensor says.

    `torch.zeros(3)` does, and a quotient of integers.
    """
    return any(map(_reads_dtype, _calls(graph)))


def reads_default_device(graph: Captured) -> bool:
    """Tell if a node makes tensors on a device that neither it nor a tensor says."""
    return any(map(_reads_device, _calls(graph)))


def _calls(graph: Captured) -> Iterator[fx.Node]:
    """The nodes that call something, in branches and loops, too."""
    modules = [module for module in graph.module.modules() if isinstance(module, fx.GraphModule)]
    for each in {id(graph): graph for graph in (graph.graph, *(m.graph for m in modules))}.values():
        yield from (node for node in each.nodes if node.op.startswith("call_"))


def _reads_device(node: fx.Node) -> bool:
    if not _tensors_of(node) or any(map(_tensors_of, node.all_input_nodes)):
        return False
    return node.kwargs.get("device") is None and not _holds(node, torch.device)


def _reads_dtype(node: fx.Node) -> bool:
    if not _any_inexact(tensors_in(example_of(node))):
        return False
    if node.op == "call_method" and node.target in _OWN_DTYPE:
        return False
    if _holds(node, torch.dtype):
        return False
    return not any(_any_inexact(_tensors_of(other)) for other in node.all_input_nodes)


def _tensors_of(node: fx.Node) -> tuple[torch.Tensor, ...]:
    return tensors_in(example_of(node))


def _holds(node: fx.Node, kind: type) -> bool:
    """Tell if a value of a class is among the arguments of a node."""
    given: list[Any] = []
    map_aggregate((node.args, node.kwargs), given.append)
    return any(isinstance(value, kind) for value in given)


def _any_inexact(tensors: Sequence[torch.Tensor]) -> bool:
    return any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors)
