"""Nodes at which a graph goes on only if a call takes the side of a branch that was traced."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx


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


def _branches(graph: fx.Graph) -> Iterator[fx.Node]:
    return filter(keeps_to_side, graph.nodes)
