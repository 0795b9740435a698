"""Find out if a graph depends on the default dtype of torch, which is no argument of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from hotstart.capture.captured import Captured, example_of, tensors_in

_OWN_DTYPE = {"float", "double", "half", "bfloat16", "cfloat", "cdouble", "chalf"}
"""Methods whose name is the dtype of what they return."""


def reads_default_dtype(graph: Captured) -> bool:
    """Tell if a node makes inexact numbers of a dtype that neither it nor a tensor says.

    `torch.zeros(3)` does, and a quotient of integers.
    """
    modules = [module for module in graph.module.modules() if isinstance(module, fx.GraphModule)]
    nodes = [*graph.graph.nodes, *(node for module in modules for node in module.graph.nodes)]
    return any(_reads(node) for node in nodes)


def _reads(node: fx.Node) -> bool:
    if not node.op.startswith("call_") or not _any_inexact(tensors_in(example_of(node))):
        return False
    if node.op == "call_method" and node.target in _OWN_DTYPE:
        return False
    given: list[Any] = []
    map_aggregate((node.args, node.kwargs), given.append)
    if any(isinstance(value, torch.dtype) for value in given):
        return False
    read = [tensor for other in node.all_input_nodes for tensor in tensors_in(example_of(other))]
    return not _any_inexact([*read, *tensors_in(pytree.tree_leaves(given))])


def _any_inexact(tensors: Sequence[torch.Tensor]) -> bool:
    return any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors)
