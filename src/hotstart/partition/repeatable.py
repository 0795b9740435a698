"""Require that a call may begin anew where it takes another side of a branch than was traced."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from hotstart._torch.graphs.assertions import asserts_contents
from hotstart._torch.graphs.nodes import region_change, switches_attention
from hotstart._torch.graphs.sides import keeps_to_side
from hotstart._torch.graphs.source_lines import line_of, without_folders
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.processes.collectives import communicates
from hotstart._torch.running.operators import is_written_in_python
from hotstart.capture.captured import example_of, tensors_in
from hotstart.capture.refusals import not_one_graph
from hotstart.errors import CaptureError
from hotstart.partition.data_sizes import NumberSizes
from hotstart.partition.effects import Acts, run_watched
from hotstart.partition.graph import Graph
from hotstart.partition.operator_names import operator_name


def require_repeatable(graph: Graph, hints: Mapping[str, int]) -> None:
    """Require of what a graph does before its last branch that doing it twice is doing it once.

    Args:
        graph: the graph.
        hints: the sizes of axes that it was traced with.

    Raises:
        CaptureError: a node draws numbers, writes to an argument or a weight, or talks to other
            processes.
    """
    last = max((n for n, node in enumerate(graph.nodes) if keeps_to_side(node)), default=0)
    if not last:
        return
    numbers = {n.name: 2 for n in graph.captured.numbers}
    at = NumberSizes(graph.captured).at(hints) or {**numbers, **hints, **graph.captured.fixed}
    inputs = frozenset(
        storage_of(t) for node in graph.placeholders for t in tensors_in(example_of(node))
    )
    for node in graph.nodes[:last]:
        try:
            _run(graph, node, at, inputs)
        except Acts as error:
            raise _repeated(graph, node, str(error)) from None


def _run(graph: Graph, node: fx.Node, at: Mapping[str, int], inputs: frozenset[int]) -> None:
    if communicates(node):
        raise Acts("other processes take part in it")
    if is_written_in_python(operator_name(node.target)):
        raise Acts("it calls an operator that is written in Python, which may do anything")
    plain = keeps_to_side(node) or asserts_contents(node) or node in graph.numbers
    if not (plain or region_change(node) or switches_attention(node)):
        run_watched(graph, node, at, inputs, also_empty=True)


def _repeated(graph: Graph, node: fx.Node, reason: str) -> CaptureError:
    branch = next(line_of(n) for n in reversed(graph.nodes) if keeps_to_side(n))
    return not_one_graph(
        branch,
        "a branch depends on the contents of a tensor, and what comes before it must not be done "
        f"twice: {reason} at {without_folders(line_of(node)) or node.name}",
        "decide before that; or torch.cond with both branches, or torch.where",
    )
