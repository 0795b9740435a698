"""Decide where a captured graph is cut."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from hotstart._torch.dynamo.packed_sequences import takes_packed
from hotstart._torch.dynamo.plain_sizes import takes_plain_sizes
from hotstart._torch.dynamo.recurrent import loops_over_steps
from hotstart._torch.graphs.assertions import asserts_contents
from hotstart._torch.graphs.nodes import region_change, sets_grad_mode, switches_attention
from hotstart._torch.graphs.sides import keeps_to_side
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import was_mutated
from hotstart._torch.processes.collectives import communicates
from hotstart.capture.captured import Captured, example_of, tensors_in
from hotstart.capture.prepare import is_item
from hotstart.errors import PartitionError
from hotstart.partition.blocks import SMALLEST, ModuleCall, repeated_blocks
from hotstart.partition.data_nodes import nodes_alone
from hotstart.partition.digest import Canonical
from hotstart.partition.graph import Graph
from hotstart.partition.idle_nodes import require_idle
from hotstart.partition.operator_names import name_given, names_of
from hotstart.partition.repeatable import require_repeatable
from hotstart.partition.tokens import Token, hash_token

SplitOn = Any
"""`"auto"`, an operator or its name, or a list of those: `["auto", "aten::bmm"]`."""


@dataclass(frozen=True)
class Run:
    """Contiguous nodes of a graph that become one piece.

    Attributes:
        nodes: the nodes, in order.
        inlined: whether they are called as they are: splitting operators, and nodes that must stay
            with them.
    """

    nodes: tuple[fx.Node, ...]
    inlined: bool


def cut(
    captured: Captured, split_on: SplitOn, hints: Mapping[str, int] = MappingProxyType({})
) -> tuple[Graph, tuple[Run, ...]]:
    """Decide where to cut a graph: at repeated blocks, at splitting operators, or at both.

    Args:
        captured: the graph.
        hints: the sizes it was traced with, which count where numbers depend on data.
        split_on: `"auto"` for repeated blocks, operators by name or by object, or a list of both.

    Returns:
        The graph as pieces see it, and the runs of nodes that become pieces, in order.

    Raises:
        PartitionError: a name that no node of the graph answers to.
        CaptureError: see `nodes_alone` and `require_idle`.
    """
    graph = Graph(captured)
    wanted = [split_on] if not isinstance(split_on, list | tuple) else split_on
    splitting = _splitting_nodes(graph, [name for name in wanted if name != "auto"])
    # Outside of kernels assertions can be left out where inputs are made up: as files are saved.
    splitting |= set(filter(asserts_contents, graph.nodes))
    # They are done in a call only, and make numbers that stitched code passes on.
    alone = nodes_alone(graph, hints)
    require_idle(graph, hints)
    require_repeatable(graph, hints)
    splitting |= alone
    splitting |= set(filter(_runs_as_eager, graph.nodes))
    splitting |= _asked_first(graph)
    runs, splitting = _runs(graph, splitting, "auto" in wanted)
    runs = _join_allocations(_join_forbidden_cuts(graph, runs), splitting)
    return graph, tuple(Run(tuple(run), _is_inlined(run, splitting, alone)) for run in runs)


def _splitting_nodes(graph: Graph, wanted: Sequence[Any]) -> frozenset[fx.Node]:
    found: set[fx.Node] = set()
    names = _names(graph.nodes) if wanted else {}
    for name in wanted:
        try:
            meant = name_given(name)
        except TypeError as error:
            raise PartitionError(
                f"split_on: {error}; takes 'auto', names such as "
                "'aten::scaled_dot_product_attention', or operators themselves"
            ) from None
        matching = {node for node, its_names in names.items() if meant in its_names}
        if not matching:
            used = sorted({n for its_names in names.values() for n in its_names if _is_packet(n)})
            raise PartitionError(
                f"split_on: no node of the graph is {meant!r}. "
                f"The graph's operators are: {', '.join(used)}"
            )
        found |= matching
    return frozenset(found)


def _names(nodes: Sequence[fx.Node]) -> dict[fx.Node, frozenset[str]]:
    """Look up the names of every node; nodes that call the same thing share them."""
    known: dict[tuple[str, Any], frozenset[str]] = {}
    for node in nodes:
        if (node.op, node.target) not in known:
            known[node.op, node.target] = names_of(node)
    return {node: known[node.op, node.target] for node in nodes}


def _is_packet(name: str) -> bool:
    """Tell whether a name is that of a registered operator, without an overload."""
    return "::" in name and "." not in name


def _runs(
    graph: Graph, splitting: frozenset[fx.Node], auto: bool
) -> tuple[list[list[fx.Node]], frozenset[fx.Node]]:
    """Group contiguous nodes that belong together; also return the nodes to cut at."""
    targets: dict[Any, Token] = {}

    def digest(nodes: Sequence[fx.Node]) -> Hashable:
        return hash_token(Canonical(graph, targets).run(nodes, graph.inputs_of(nodes), ()))

    blocks = repeated_blocks(graph.nodes, digest) if auto else {}
    labels: list[Hashable] = []
    for node in graph.nodes:
        inherits = labels and is_item(node)
        labels.append(labels[-1] if inherits else (node in splitting, blocks.get(node)))
    for index in reversed(range(len(labels) - 1)):
        if graph.nodes[index].op == "get_attr":
            labels[index] = labels[index + 1]
    splitting |= _attach_glue(graph.nodes, labels, blocks, splitting)
    runs: list[list[fx.Node]] = []
    previous: Hashable = None
    for node, label in zip(graph.nodes, labels, strict=True):
        if not runs or label != previous:
            runs.append([])
        runs[-1].append(node)
        previous = label
    return runs, splitting


def _attach_glue(
    nodes: Sequence[fx.Node],
    labels: list[Hashable],
    blocks: dict[fx.Node, ModuleCall],
    splitting: frozenset[fx.Node],
) -> frozenset[fx.Node]:
    """Give the few nodes between two blocks of a kind to the block that follows them.

    Where each block takes a part of its own, such as `states[3]`, the part is taken outside: the
    number would make every block another one.

    Returns:
        The nodes that take such parts.
    """
    parts: set[fx.Node] = set()
    start = 0
    while start < len(nodes):
        end = start
        while end < len(nodes) and labels[end] == (False, None):
            end += 1
        before = blocks.get(nodes[start - 1]) if start else None
        after = blocks.get(nodes[end]) if end < len(nodes) else None
        alike = before is not None and after is not None and before.cls == after.cls
        if alike and end - start < SMALLEST and nodes[end] not in splitting:
            taken = tuple(itertools.takewhile(_takes_a_part, nodes[start:end]))
            parts.update(taken)
            labels[start : start + len(taken)] = [(True, None)] * len(taken)
            labels[start + len(taken) : end] = [labels[end]] * (end - start - len(taken))
        start = max(end, start + 1)
    return frozenset(parts)


def _takes_a_part(node: fx.Node) -> bool:
    """Tell whether a node only takes a part of a tensor, by a constant number."""
    if node.target not in (operator.getitem, torch.select, "select") or node.kwargs:
        return False
    _, *index = node.args
    numbers = index[0] if isinstance(index[0], tuple) else index
    ends = (e for n in numbers if isinstance(n, slice) for e in (n.start, n.stop, n.step))
    known = all(type(n) in (int, slice, type(None), type(...)) for n in (*numbers, *ends))
    return known and any(type(n) is int for n in numbers) and not is_item(node)


def _join_forbidden_cuts(graph: Graph, runs: list[list[fx.Node]]) -> list[list[fx.Node]]:
    """Join runs that must be in one piece.

    A region such as autocast is opened and closed in one piece. Tensors made by the model that
    share memory and are written to stay in one piece until only one of them is left, since the
    outputs of a compiled piece need not share memory with each other.
    """
    run_of = {node: index for index, run in enumerate(runs) for node in run}
    cuts = set(range(1, len(runs)))
    for first, last in (*_regions(graph, run_of), *_shared_and_written(graph, run_of)):
        cuts -= set(range(first + 1, last + 1))
    joined: list[list[fx.Node]] = []
    for index, run in enumerate(runs):
        if index in cuts or not joined:
            joined.append([])
        joined[-1] += run
    return joined


def _regions(graph: Graph, run_of: dict[fx.Node, int]) -> Iterable[tuple[int, int]]:
    """Find the (first, last) run of every region that must be opened and closed in one piece."""
    switches = [run_of[node] for node in graph.nodes if sets_grad_mode(node)]
    if switches:
        yield switches[0], switches[-1]
    depth, first = 0, 0
    switched: int | None = None
    for node in graph.nodes:
        change = region_change(node)
        if change > 0 and depth == 0:
            first = run_of[node]
        depth += change
        if change < 0 and depth == 0:
            yield first, run_of[node]
        if switches_attention(node):
            if switched is None:
                switched = run_of[node]
            else:
                yield switched, run_of[node]
                switched = None


def _shared_and_written(graph: Graph, run_of: dict[fx.Node, int]) -> Iterable[tuple[int, int]]:
    """Find the (first, last) runs in which several nodes that share written memory are needed.

    Memory of the graph's inputs is left out: what a piece makes of its inputs shares memory with
    them as it does in eager.
    """
    inputs = {storage_of(t) for node in graph.placeholders for t in tensors_in(example_of(node))}
    sharing: dict[int, dict[fx.Node, None]] = {}
    for node in graph.nodes:
        for tensor in tensors_in(example_of(node)):
            if was_mutated(tensor) and storage_of(tensor) not in inputs:
                sharing.setdefault(storage_of(tensor), {})[node] = None
    for nodes in sharing.values():
        spans = [
            (run_of[node], max((run_of[user] for user in node.users if user in run_of), default=-1))
            for node in nodes
        ]
        for boundary in range(min(made for made, _ in spans), max(last for _, last in spans)):
            if sum(made <= boundary < last for made, last in spans) > 1:
                yield boundary, boundary + 1


def _join_allocations(
    runs: list[list[fx.Node]], splitting: frozenset[fx.Node]
) -> list[list[fx.Node]]:
    """Join a run of empty allocations only with the next run, or with the one before at the end.

    A splitting operator stays inlined with the allocations it writes to.
    """
    joined: list[list[fx.Node]] = []
    waiting: list[fx.Node] = []
    for run in runs:
        waiting += run
        if any(node in splitting or not _is_allocation(node) for node in run):
            joined.append(waiting)
            waiting = []
    if waiting and joined:
        joined[-1] += waiting
    elif waiting:
        joined.append(waiting)
    return joined


_ALLOCATIONS = frozenset(
    f"aten::{name}"
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
)


def _is_allocation(node: fx.Node) -> bool:
    return bool(_ALLOCATIONS & names_of(node))


def _runs_as_eager(node: fx.Node) -> bool:
    """Tell whether a node calls what no compiler is given.

    All processes have to come to a collective in the same order, and proofs run on one. Inductor
    takes recurrent layers apart step by step, for one length each, and what is packed for none; it
    traces an operator with an integer for a size for one size. A unit cannot end a call, as one
    does that takes the other side of a branch.
    """
    kinds = (communicates, keeps_to_side, loops_over_steps, takes_packed, takes_plain_sizes)
    return any(is_one(node) for is_one in kinds)


_FEW = 32
"""Most nodes that are called one by one for a question at the beginning of a graph."""


def _asked_first(graph: Graph) -> set[fx.Node]:
    """Find the nodes that a graph begins with, as of a mask or a flag, to decide branches.

    They are called as they are: a piece for them would be compiled for little, and come before what
    may be native.
    """
    found: set[fx.Node] = set()
    for number, node in enumerate(graph.nodes[:_FEW]):
        if any(map(graph.is_weight, graph.reads(node))):
            break
        if keeps_to_side(node):
            found = set(graph.nodes[: number + 1])
    return found


def _is_inlined(
    run: Sequence[fx.Node], splitting: frozenset[fx.Node], alone: frozenset[fx.Node]
) -> bool:
    """Tell whether a run holds only splitting operators, and nodes that must stay with them.

    Nodes that must stay with a collective are inlined too, as in a region of autocast. So are those
    that must stay with a recurrent layer, or with a node that makes or needs a data-dependent
    number.
    """
    if any(map(_runs_as_eager, run)):
        return True
    if alone.intersection(run):
        return True
    others = (n for n in run if n not in splitting and not is_item(n) and n.op != "get_attr")
    return bool(splitting.intersection(run)) and all(map(_is_allocation, others))
