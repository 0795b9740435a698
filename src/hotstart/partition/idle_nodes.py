"""Prove that nodes which eager skips where a number is 0 have no effect there.

They are in the graph nevertheless: see `_torch/dynamo/idle_branches`. They have no effect if they
do not raise, draw no random numbers, make no check that could fail, write only to empty tensors,
and no other node reads their results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import fx

from hotstart._torch.dynamo.data_numbers import asserts_number
from hotstart._torch.dynamo.idle_bodies import mask_of
from hotstart._torch.graphs.assertions import asserts_contents
from hotstart._torch.graphs.nodes import region_change, switches_attention
from hotstart._torch.graphs.source_lines import line_of, without_folders
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.processes.collectives import communicates
from hotstart.capture.captured import example_of, tensors_in
from hotstart.capture.idle import IdleNodes
from hotstart.capture.refusals import not_idle
from hotstart.partition.data_sizes import NumberSizes
from hotstart.partition.effects import Acts, run_watched
from hotstart.partition.graph import Graph

if TYPE_CHECKING:
    import sympy


def require_idle(graph: Graph, hints: Mapping[str, int]) -> None:
    """Require of a graph that what eager leaves out does nothing then.

    Args:
        graph: the graph.
        hints: the sizes of axes that it was traced with.

    Raises:
        CaptureError: a node does something, or may.
    """
    # If an axis of the example is empty, tensors are empty for other reasons, too.
    known = {axis: size or 2 for axis, size in hints.items()} | dict(graph.captured.fixed)
    finder = NumberSizes(graph.captured)
    computing = frozenset(graph.nodes)
    for idle in graph.captured.idle:
        at = finder.at({**known, **dict.fromkeys(idle.numbers, 0)})
        _require(idle, at is not None, None, "the model checks that there is something")
        _require(idle, not _empty_besides(graph, idle, at or {}), None, "it depends on two numbers")
        _require_checks_hold(graph, idle)
        outside = _storages_outside(graph, idle)
        for node in idle.nodes:
            _require_unread(idle, node)
            if asserts_number(node) or node not in computing:
                continue
            try:
                _run(graph, idle, node, at or {}, outside)
            except Acts as error:
                _require(idle, False, node, str(error))


def _empty_besides(graph: Graph, idle: IdleNodes, at: Mapping[str, int]) -> bool:
    """Tell whether sizes have another number at 0, so that more is empty than has to be."""
    met = {str(symbol) for node in idle.nodes for symbol in graph.symbols_in(graph.met(node))}
    numbers = {number.name for number in graph.captured.numbers if number.is_size}
    return any(at.get(name) == 0 for name in (numbers & met).difference(idle.numbers))


def _require(idle: IdleNodes, holds: bool, node: fx.Node | None, reason: str) -> None:
    if not holds:
        place = "" if node is None else without_folders(line_of(node))
        raise not_idle(idle.line, f"{reason} at {place}" if place else reason)


def _require_checks_hold(graph: Graph, idle: IdleNodes) -> None:
    """Require that all checks of numbers hold where eager would not make them."""
    made = {n.name for node in idle.nodes for n in graph.numbers.get(node, ())}
    facts = [fact for fact in graph.captured.facts if fact.node in idle.nodes]
    _require(
        idle,
        all(_selects_nothing(idle, fact.node) and _is_zero(fact.equals, idle) for fact in facts),
        None,
        "a number that it makes has to be equal to another",
    )
    for check in graph.captured.guarded:
        names = {str(symbol): symbol for symbol in check.free_symbols}
        if not made.isdisjoint(names) or names.keys() & set(idle.numbers):
            zero = {symbol: 0 for name, symbol in names.items() if name in idle.numbers}
            _require(idle, check.subs(zero) == True, None, f"it checks {check}")  # noqa: E712


def _selects_nothing(idle: IdleNodes, node: fx.Node) -> bool:
    """Tell whether a node finds, reads or writes at a mask that selects nothing."""
    found = mask_of(node)
    return found is not None and found[1] in idle.masks


def _is_zero(expr: sympy.Expr, idle: IdleNodes) -> bool:
    zero = {symbol: 0 for symbol in expr.free_symbols if str(symbol) in idle.numbers}
    return bool(expr.subs(zero) == 0)


def _require_unread(idle: IdleNodes, node: fx.Node) -> None:
    """Require that only nodes which are skipped as well read a node's result."""
    _require(idle, idle.nodes.issuperset(node.users), node, "what it makes is read later,")


def _storages_outside(graph: Graph, idle: IdleNodes) -> frozenset[int]:
    """The memory that is there without these nodes."""
    nodes = (node for node in graph.captured.graph.nodes if node not in idle.nodes)
    return frozenset(storage_of(t) for node in nodes for t in tensors_in(example_of(node)))


def _run(
    graph: Graph,
    idle: IdleNodes,
    node: fx.Node,
    at: Mapping[str, int],
    outside: frozenset[int],
) -> None:
    """Run a node at some sizes, watching what it does.

    Raises:
        Acts: it raises, writes to memory that others read, or has other effects.
    """
    if communicates(node):
        raise Acts("other processes take part in it")
    if asserts_contents(node):
        raise Acts("it checks what a tensor holds")
    if region_change(node) or switches_attention(node):
        raise Acts("it changes a mode, as autocast does")
    # A node that selects nothing writes to no element of them.
    run_watched(graph, node, at, frozenset() if _selects_nothing(idle, node) else outside)
