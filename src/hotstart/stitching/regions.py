"""Write statements such that an error among them leaves no region open.

Regions are of autocast, of functional transforms, of settings such as which attention kernels may
be used. A call that fails must not leave its thread in one: calls after it would compute otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import fx

from hotstart._torch.graphs.nodes import (
    names_kernel,
    region_change,
    sets_grad_mode,
    switches_attention,
)

Ends = Callable[[fx.Node], bool]
"""Tells whether a node ends a region."""


class Statements:
    """Lines of a function, in order; those within a region are a `try` whose `finally` ends it.

    Args:
        nodes: all nodes whose statements are to come.
    """

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self._blocks: list[list[str]] = [[]]
        self._ends: list[Ends] = []
        # The last node of a kind restores the setting from before the first.
        self._set = {node.target: _setting(node) for node in nodes if _sets(node)}

    def add(self, lines: Iterable[str]) -> None:
        """Add lines that neither begin a region nor end one."""
        self._blocks[-1] += lines

    def add_node(self, node: fx.Node, statement: str) -> None:
        """Add the statement of a node, which may begin a region or end one."""
        if self._ends and self._ends[-1](node):
            self._ends.pop()
            block = self._blocks.pop()
            body = ["try:", *(f"    {line}" for line in block), "finally:", f"    {statement}"]
            self.add(body if block else [statement])
        else:
            self.add([statement])
            begun = self._begun_by(node)
            if begun is not None:
                self._ends.append(begun)
                self._blocks.append([])
        if _sets(node):
            self._set[node.target] = _setting(node)

    def lines(self) -> list[str]:
        """List all lines. Regions that nothing has ended stay open."""
        return [line for block in self._blocks for line in block]

    def _begun_by(self, node: fx.Node) -> Ends | None:
        """Tell what ends the region that a node begins; None if it begins none."""
        if region_change(node) > 0:
            return lambda other: region_change(other) < 0
        if not _sets(node) or _setting(node) == self._set[node.target]:
            return None
        before = self._set[node.target]
        return lambda other: other.target == node.target and _setting(other) == before


def in_order(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Put first what names kernels, so that the end of every region has what it needs."""
    return sorted(nodes, key=lambda node: not names_kernel(node))


def _setting(node: fx.Node) -> Any:
    """The arguments of a node; a node among them is what it is called with."""
    return fx.node.map_arg(node.args, lambda operand: operand.args)


def _sets(node: fx.Node) -> bool:
    """Tell whether a node sets what another sets back, with the same function."""
    return switches_attention(node) or sets_grad_mode(node)
