"""Cut a captured graph into pieces."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.capture import Captured
from hotstart.errors import PartitionError
from hotstart.partition.blocks import SMALLEST, Call, path_of, repeated_blocks
from hotstart.partition.digest import Canonical, Token, hash_token
from hotstart.partition.names import name_given, names_of
from hotstart.partition.plan import Graph, Piece, Plan, example_of, tensors_in

SplitOn = Any
"""`"auto"`, an operator or its name, or a list of those: `["auto", "aten::bmm"]`."""


@dataclass(frozen=True)
class Runs:
    """Where a graph is cut.

    Attributes:
        runs: contiguous runs of nodes, in order; each becomes a piece.
        splitting: the nodes the graph was asked to be cut at.
    """

    runs: tuple[tuple[fx.Node, ...], ...]
    splitting: frozenset[fx.Node]


def cut(captured: Captured, split_on: SplitOn) -> tuple[Graph, Runs]:
    """Decide where to cut a graph: at repeated blocks, at splitting ops, or at both.

    Args:
        captured: the graph; tuples that cross a cut are taken apart in it.
        split_on: `"auto"` for repeated blocks, operators by name or by object, or a list of both.

    Returns:
        The graph as pieces see it, and the runs of nodes that become pieces.

    Raises:
        PartitionError: a name that no node of the graph answers to.
    """
    _take_tuples_apart(captured.graph)
    graph = Graph(captured)
    wanted = [split_on] if not isinstance(split_on, list | tuple) else split_on
    splitting = _splitting_nodes(graph, [name for name in wanted if name != "auto"])
    runs = _runs(graph, splitting, "auto" in wanted)
    runs = _join_allocations(_join_forbidden_cuts(graph, runs), splitting)
    return graph, Runs(tuple(map(tuple, runs)), splitting)


def make_plan(graph: Graph, runs: Runs, prefix: str = "") -> Plan:
    """Describe and digest the pieces that runs of nodes become; `prefix` starts their names."""
    return Plan(graph, tuple(_pieces(graph, runs, prefix)))


# --- where to cut ---------------------------------------------------------------------------------


def _splitting_nodes(graph: Graph, wanted: Sequence[Any]) -> frozenset[fx.Node]:
    found: set[fx.Node] = set()
    for name in wanted:
        try:
            meant = name_given(name)
        except TypeError as error:
            raise PartitionError(
                f"split_on: {error}; takes 'auto', names such as "
                "'aten::scaled_dot_product_attention', or operators themselves"
            ) from None
        matching = {node for node in graph.nodes if meant in names_of(node)}
        if not matching:
            used = sorted({n for node in graph.nodes for n in names_of(node) if "::" in n})
            raise PartitionError(
                f"split_on: no node of the graph is {meant!r}. "
                f"The graph's operators are: {', '.join(used)}"
            )
        found |= matching
    return frozenset(found)


def _runs(graph: Graph, splitting: frozenset[fx.Node], auto: bool) -> list[list[fx.Node]]:
    """Contiguous runs of nodes that belong together."""
    blocks = repeated_blocks(graph.nodes, _structure(graph)) if auto else {}
    labels: list[Hashable] = []
    for node in graph.nodes:
        inherits = labels and _is_item(node)
        labels.append(labels[-1] if inherits else (node in splitting, blocks.get(node)))
    _attach_glue(graph.nodes, labels, blocks, splitting)
    runs: list[list[fx.Node]] = []
    previous: Hashable = None
    for node, label in zip(graph.nodes, labels, strict=True):
        if not runs or label != previous:
            runs.append([])
        runs[-1].append(node)
        previous = label
    return runs


def _attach_glue(
    nodes: Sequence[fx.Node],
    labels: list[Hashable],
    blocks: dict[fx.Node, Call],
    splitting: frozenset[fx.Node],
) -> None:
    """Give the few nodes between two blocks of a kind to the block that follows them."""
    start = 0
    while start < len(nodes):
        end = start
        while end < len(nodes) and labels[end] == (False, None):
            end += 1
        before = blocks.get(nodes[start - 1]) if start else None
        after = blocks.get(nodes[end]) if end < len(nodes) else None
        alike = before is not None and after is not None and before.cls == after.cls
        if alike and end - start < SMALLEST and nodes[end] not in splitting:
            labels[start:end] = [labels[end]] * (end - start)
        start = max(end, start + 1)


def _structure(graph: Graph) -> Any:
    def digest(nodes: Sequence[fx.Node]) -> Hashable:
        inside = set(nodes)
        own = [node for node in graph.nodes if node in inside]
        inputs = list(dict.fromkeys(n for node in own for n in graph.reads(node) if n not in inside))
        return hash_token(Canonical(graph).run(own, inputs, []))

    return digest


def _join_forbidden_cuts(graph: Graph, runs: list[list[fx.Node]]) -> list[list[fx.Node]]:
    """Join runs that must not be apart.

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
    """(first, last) run of every region that must be opened and closed in one piece."""
    depth, first = 0, 0
    for node in graph.nodes:
        change = _torch.region_change(node)
        if change > 0 and depth == 0:
            first = run_of[node]
        depth += change
        if change < 0 and depth == 0:
            yield first, run_of[node]


def _shared_and_written(
    graph: Graph, run_of: dict[fx.Node, int]
) -> Iterable[tuple[int, int]]:
    """(first, last) run in which different views of a written storage of the graph's own are used."""
    inputs = {
        _torch.storage_of(t) for node in graph.placeholders for t in tensors_in(example_of(node))
    }
    views: dict[int, dict[int, list[fx.Node]]] = {}
    for node in graph.nodes:
        for tensor in tensors_in(example_of(node)):
            storage = _torch.storage_of(tensor)
            if storage not in inputs and _torch.was_mutated(tensor):
                views.setdefault(storage, {}).setdefault(id(tensor), []).append(node)
    for by_tensor in views.values():
        if len(by_tensor) > 1:
            touched = [
                run_of[n]
                for nodes in by_tensor.values()
                for node in nodes
                for n in (node, *node.users)
                if n in run_of
            ]
            yield min(touched), max(touched)


def _join_allocations(
    runs: list[list[fx.Node]], splitting: frozenset[fx.Node]
) -> list[list[fx.Node]]:
    """Join a run of nothing but empty allocations with the next run, or the last if there is none."""
    joined: list[list[fx.Node]] = []
    waiting: list[fx.Node] = []
    for run in runs:
        if run[0] not in splitting and all(map(_is_allocation, run)):
            waiting += run
        elif waiting and run[0] in splitting:
            joined += [waiting, run]
            waiting = []
        else:
            joined.append(waiting + run)
            waiting = []
    if waiting and joined and joined[-1][0] not in splitting:
        joined[-1] += waiting
    elif waiting:
        joined.append(waiting)
    return joined


_ALLOCATIONS = frozenset(
    f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
)


def _is_allocation(node: fx.Node) -> bool:
    return bool(_ALLOCATIONS & names_of(node))


# --- what the pieces are --------------------------------------------------------------------------


def _pieces(graph: Graph, cuts: Runs, prefix: str) -> Iterable[Piece]:
    runs, splitting = cuts.runs, cuts.splitting
    last_use: dict[fx.Node, int] = {}
    for index, run in enumerate(runs):
        for node in run:
            for read in graph.reads(node):
                last_use[read] = index
    returned = set(graph.returned())
    for index, run in enumerate(runs):
        inside = set(run)
        inputs = tuple(
            dict.fromkeys(
                read for node in run for read in graph.reads(node) if read not in inside
            )
        )
        outputs = tuple(
            node
            for node in run
            if isinstance(example_of(node), torch.Tensor)
            and (node in returned or last_use.get(node, index) > index)
        )
        canonical = Canonical(graph)
        tokens: Token = canonical.run(run, inputs, outputs)
        yield Piece(
            name=f"{prefix}piece_{index}",
            kind="inlined" if all(n in splitting or _is_item(n) for n in run) else "compiled",
            nodes=run,
            inputs=inputs,
            outputs=outputs,
            axes=canonical.axes,
            layers=_layers(run),
            digest=hash_token(tokens),
        )


def _layers(run: Sequence[fx.Node]) -> tuple[str, ...]:
    """Paths of the submodules a run came from, without those inside another one listed."""
    paths = sorted({path for node in run if (path := path_of(node))})
    kept: list[str] = []
    for path in paths:
        if not any(path.startswith(f"{outer}.") for outer in kept):
            kept.append(path)
    common = _common_parent(kept)
    return (common,) if common and len(kept) > 1 else tuple(kept)


def _common_parent(paths: Sequence[str]) -> str:
    parts = [path.split(".") for path in paths]
    common: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return ".".join(common)


# --- tuples ---------------------------------------------------------------------------------------


def _is_item(node: fx.Node) -> bool:
    """Whether a node takes one tensor out of a tuple that another node made."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, fx.Node) and isinstance(example_of(source), tuple | list)


def _take_tuples_apart(graph: fx.Graph) -> None:
    """Move every `getitem` next to the node that made the tuple, and let only items be used.

    Where a tuple is used whole, the use gets a tuple of items, so that only tensors flow.
    """
    for node in list(graph.nodes):
        example = example_of(node)
        if not isinstance(example, tuple | list) or not tensors_in(example):
            continue
        if not all(isinstance(item, torch.Tensor) for item in example):
            continue
        items: dict[int, fx.Node] = {}
        last = node
        for user in list(node.users):
            if user.target is operator.getitem and isinstance(user.args[1], int):
                index = user.args[1] % len(example)
                if index in items:
                    user.replace_all_uses_with(items[index])
                    graph.erase_node(user)
                else:
                    last.append(user)
                    items[index] = last = user
        whole = [user for user in node.users if user not in items.values()]
        if not whole:
            continue
        for index, item in enumerate(example):
            if index not in items:
                with graph.inserting_after(last):
                    made = graph.call_function(operator.getitem, (node, index))
                made.meta = {**node.meta, "example_value": item}
                items[index] = last = made
        parts = tuple(items[i] for i in range(len(example)))
        for user in whole:
            user.args = fx.node.map_arg(user.args, lambda n, t=parts, o=node: t if n is o else n)
            user.kwargs = fx.node.map_arg(user.kwargs, lambda n, t=parts, o=node: t if n is o else n)
