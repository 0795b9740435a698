"""Nodes at which a graph goes on only if a call takes the side of a branch that was traced."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from hotstart._torch.graphs.nodes import region_change, switches_attention
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import memory_written

_FEW = 32
"""Most nodes that a question is moved with: those that make a mask or a flag, and not layers."""


@fx.has_side_effect
def keep_to_side(condition: torch.Tensor, side: bool, other: tuple[bool, ...]) -> None:
    """Stand in a graph for a branch on what a tensor of one element holds.

    Args:
        condition: the tensor that decides.
        side: its truth on the side that was traced.
        other: the sides of branches, from the first on, that lead to the other side.
    """


def keeps_to_side(node: fx.Node) -> bool:
    """Tell whether a node is where calls that take the other side of a branch leave the graph."""
    return node.target is keep_to_side


def sides_of(graph: fx.Graph) -> tuple[bool, ...]:
    """List the sides of branches that a graph has traced, in order."""
    return tuple(bool(node.args[1]) for node in _branches(graph))


def ask_early(graph: fx.Graph) -> None:
    """Move branches, with what decides them, before all else where that shows nothing.

    A call that leaves there has done little, and nothing that it must not do twice.
    """
    written = memory_written(graph)
    last = next(iter(reversed(graph.find_nodes(op="placeholder"))), None)
    moved: set[fx.Node] = set()
    for node in list(graph.nodes):
        if last is None or region_change(node) or switches_attention(node):
            return
        if not keeps_to_side(node):
            continue
        needed = _needed(node)
        if len(needed) <= _FEW and not any(map(written.intersection, map(_memory, needed))):
            for each in needed:
                if each not in moved:
                    last.append(each)
                    last = each
            moved.update(needed)


def _needed(node: fx.Node) -> list[fx.Node]:
    """List a node after all that it follows from, in the order of the graph."""
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each not in found and each.op != "placeholder":
            found.add(each)
            waiting += each.all_input_nodes
    return [each for each in node.graph.nodes if each in found]


def _memory(node: fx.Node) -> set[int]:
    """The memory that a node reads or makes."""
    examples = (each.meta.get("example_value") for each in (node, *node.all_input_nodes))
    return {storage_of(each) for each in examples if isinstance(each, torch.Tensor)}


def _branches(graph: fx.Graph) -> Iterator[fx.Node]:
    return filter(keeps_to_side, graph.nodes)
