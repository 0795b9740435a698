"""Keep Inductor's passes from merging outputs of a graph with inputs, or with each other."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import fx


def keep_outputs_apart(graph: fx.GraphModule, memory: tuple[Sequence[int], Sequence[int]]) -> None:
    """Copy outputs that a pass has merged with an input or with another output.

    The joint graph passes take out arithmetic that changes nothing: `x * ones` up to 2.13, also `x
    * 1.0` and `x + 0` since. A new tensor would become the input itself, so a write to one would
    change the other.
    """
    read, made = memory
    (result,) = graph.graph.find_nodes(op="output")
    outputs = list(result.args[0])
    placeholders = graph.graph.find_nodes(op="placeholder")
    # Sizes come first; where AOTAutograd adds to either list, the piece runs op by op.
    owner = dict(zip(reversed(placeholders), reversed(read), strict=False))
    with graph.graph.inserting_before(result):
        for index, (node, number) in enumerate(zip(outputs, made, strict=False)):
            if owner.setdefault(_root(node), number) != number:
                outputs[index] = _copy(node)
    if outputs != list(result.args[0]):
        result.args = (type(result.args[0])(outputs),)
        graph.recompile()


def _copy(node: fx.Node) -> fx.Node:
    """Copy a node: its base is copied if it is a view."""
    of = _shown(node)
    if of is None:
        copy = node.graph.call_function(torch.ops.aten.clone.default, (node,))
        copy.meta["val"] = node.meta["val"].clone()
        return copy
    base = _copy(of)
    return node.graph.node_copy(node, lambda other: base if other is of else other)


def _root(node: fx.Node) -> fx.Node:
    """The node that made the memory of a node in a functional graph."""
    while (of := _shown(node)) is not None:
        node = of
    return node


def _shown(node: fx.Node) -> fx.Node | None:
    """The base of a node that is a view; None for others."""
    of = node.args[0] if node.args else None
    if not isinstance(of, fx.Node):
        return None
    if node.target is operator.getitem:
        return of if _shown(of) is not None else None
    view = node.target is torch.ops.aten._unsafe_view.default
    return of if view or getattr(node.target, "is_view", False) else None
