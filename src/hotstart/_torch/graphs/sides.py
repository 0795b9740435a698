"""Nodes at which a graph goes on only if a call takes the side of a branch that was traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import region_change, switches_attention
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import memory_written


@fx.has_side_effect
def keep_to_side(
    condition: str, operands: tuple[Any, ...], side: bool, other: tuple[bool, ...]
) -> None:
    """Stand in a graph for a branch on what tensors hold.

    Args:
        condition: Python source, with `{0}` for the first operand.
        operands: tensors of one element, for the numbers that they hold, and whole numbers.
        side: the truth of the condition on the side that was traced.
        other: the sides of branches, from the first on, that lead to the other side.
    """


def keeps_to_side(node: fx.Node) -> bool:
    """Tell whether a node is where calls that take the other side of a branch leave the graph."""
    return node.target is keep_to_side


def ask_early(graph: fx.Graph) -> None:
    """Move branches, with what decides them, before all else; they stay in order.

    A call that leaves there has done little, nothing that it must not do twice, and no check of
    what is on this side only. The first branch that stays ends this: it may follow from what was
    written to, or be in a region such as autocast.
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
        if any(map(written.intersection, map(_memory, needed))):
            return
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
