"""Nodes that eager leaves out where there is nothing to do, described as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from hotstart._torch.dynamo.full_graph import FullGraph
from hotstart._torch.dynamo.idle_bodies import idle_nodes
from hotstart.capture.numbers import Numbers
from hotstart.capture.refusals import not_idle


@dataclass(frozen=True)
class IdleNodes:
    """Nodes that eager skips where there is nothing to do, and that a trace has nevertheless.

    Attributes:
        numbers: the names of numbers that are 0 then.
        masks: nodes of masks that select nothing then.
        nodes: the nodes, with those that were inserted between them.
        line: of the user's code that decides.
    """

    numbers: tuple[str, ...]
    masks: tuple[fx.Node, ...] = field(repr=False)
    nodes: frozenset[fx.Node] = field(repr=False)
    line: str


def find_idle(traced: FullGraph, numbers: Numbers) -> tuple[IdleNodes, ...]:
    """Describe nodes that eager leaves out; `partition/idle_nodes` proves that they do nothing.

    Raises:
        CaptureError: checks of the model make a number equal to another that has to be 0 then.
    """
    found: list[IdleNodes] = []
    for idle, nodes in idle_nodes(traced.module.graph):
        known = [traced.env.replace(symbol) for symbol in idle.symbols]
        if not numbers.symbols.keys() >= set(known):
            raise not_idle(idle.line, "it makes numbers that have to be equal to others")
        names = tuple(str(numbers.symbols[symbol]) for symbol in known)
        found.append(IdleNodes(names, idle.masks, nodes, idle.line))
    return tuple(found)
