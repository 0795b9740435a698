"""Cut a captured graph into pieces."""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.capture.trace import Captured
from hotstart.errors import PartitionError
from hotstart.partition.blocks import SMALLEST, Call, paths_of, repeated_blocks
from hotstart.partition.digest import Canonical, Token, hash_token, is_portable
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
    _bring_attributes(captured.graph)
    graph = Graph(captured)
    wanted = [split_on] if not isinstance(split_on, list | tuple) else split_on
    splitting = _splitting_nodes(graph, [name for name in wanted if name != "auto"])
    # Outside of kernels assertions can be left out where inputs are made up: as files are saved.
    splitting |= set(filter(_torch.asserts_contents, graph.nodes))
    runs, splitting = _runs(graph, splitting, "auto" in wanted)
    runs = _join_allocations(_join_forbidden_cuts(graph, runs), splitting)
    return graph, Runs(tuple(map(tuple, runs)), splitting)


def make_plan(graph: Graph, runs: Runs, prefix: str = "") -> Plan:
    """Describe and digest the pieces that runs of nodes become; `prefix` starts their names."""
    return Plan(graph, tuple(_pieces(graph, runs, prefix)))


# --- where to cut ---------------------------------------------------------------------------------


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
    """Every node's names; nodes that call the same thing share them."""
    known: dict[tuple[str, Any], frozenset[str]] = {}
    for node in nodes:
        if (node.op, node.target) not in known:
            known[node.op, node.target] = names_of(node)
    return {node: known[node.op, node.target] for node in nodes}


def _is_packet(name: str) -> bool:
    """Whether a name is an operator's as it is registered, without an overload."""
    return "::" in name and "." not in name


def _runs(
    graph: Graph, splitting: frozenset[fx.Node], auto: bool
) -> tuple[list[list[fx.Node]], frozenset[fx.Node]]:
    """Contiguous runs of nodes that belong together, and the nodes that are cut at after all."""
    targets: dict[Any, Token] = {}

    def digest(nodes: Sequence[fx.Node]) -> Hashable:
        return hash_token(Canonical(graph, targets).run(nodes, _inputs(graph, nodes), ()))

    blocks = repeated_blocks(graph.nodes, digest) if auto else {}
    labels: list[Hashable] = []
    for node in graph.nodes:
        inherits = labels and _is_item(node)
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
    blocks: dict[fx.Node, Call],
    splitting: frozenset[fx.Node],
) -> frozenset[fx.Node]:
    """Give the few nodes between two blocks of a kind to the block that follows them.

    What each block takes its own part of, such as `states[3]`, is taken outside, lest the number
    makes every block another one.

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
    """Whether a node takes a part of a tensor by a number that is known, and does nothing else."""
    if node.target not in (operator.getitem, torch.select, "select") or node.kwargs:
        return False
    _, *index = node.args
    numbers = index[0] if isinstance(index[0], tuple) else index
    ends = (e for n in numbers if isinstance(n, slice) for e in (n.start, n.stop, n.step))
    known = all(type(n) in (int, slice, type(None), type(...)) for n in (*numbers, *ends))
    return known and any(type(n) is int for n in numbers) and not _is_item(node)


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
    switches = [run_of[node] for node in graph.nodes if _torch.sets_grad_mode(node)]
    if switches:
        yield switches[0], switches[-1]
    depth, first = 0, 0
    switched: int | None = None
    for node in graph.nodes:
        change = _torch.region_change(node)
        if change > 0 and depth == 0:
            first = run_of[node]
        depth += change
        if change < 0 and depth == 0:
            yield first, run_of[node]
        if _torch.switches_attention(node):
            if switched is None:
                switched = run_of[node]
            else:
                yield switched, run_of[node]
                switched = None


def _shared_and_written(graph: Graph, run_of: dict[fx.Node, int]) -> Iterable[tuple[int, int]]:
    """(first, last) run between which several nodes that share written memory are still needed.

    Memory of the graph's inputs is left out: what a piece makes of its inputs shares memory with
    them as it does in eager.
    """
    inputs = {
        _torch.storage_of(t) for node in graph.placeholders for t in tensors_in(example_of(node))
    }
    sharing: dict[int, dict[fx.Node, None]] = {}
    for node in graph.nodes:
        for tensor in tensors_in(example_of(node)):
            if _torch.was_mutated(tensor) and _torch.storage_of(tensor) not in inputs:
                sharing.setdefault(_torch.storage_of(tensor), {})[node] = None
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
    """Join a run of nothing but empty allocations with the next run, or the last if there is none.

    A splitting op stays inlined with the allocations it writes to.
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


# --- what the pieces are --------------------------------------------------------------------------


def _pieces(graph: Graph, cuts: Runs, prefix: str) -> Iterable[Piece]:
    runs, splitting = cuts.runs, cuts.splitting
    last_use = {
        read: index for index, run in enumerate(runs) for node in run for read in graph.reads(node)
    }
    returned = set(graph.returned())
    targets: dict[Any, Token] = {}
    sizes = Counter(path for node in graph.nodes for path in paths_of(node))
    for index, run in enumerate(runs):
        inputs = _inputs(graph, run)
        inlined = _is_inlined(run, splitting)
        used = tuple(
            node
            for node in run
            if isinstance(example_of(node), torch.Tensor)
            and (node in returned or last_use.get(node, index) > index)
        )
        views = {} if inlined else _views(used, inputs)
        outputs = tuple(node for node in used if node not in views)
        canonical = Canonical(graph, targets)
        tokens: Token = canonical.run(run, inputs, outputs)
        yield Piece(
            name=f"{prefix}piece_{index}",
            kind="inlined" if inlined else "compiled",
            nodes=run,
            inputs=inputs,
            outputs=outputs,
            axes=canonical.axes,
            layers=_layers(run, sizes),
            digest=hash_token(tokens),
            portable=is_portable(tokens),
            views=views,
        )


def _views(nodes: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
    """The nodes whose tensors are views of an input's memory, with the input."""
    bases = {_memory(example_of(node)): node for node in reversed(inputs)}
    found = ((node, bases.get(_memory(example_of(node)))) for node in nodes)
    return {node: base for node, base in found if base is not None}


def _memory(tensor: torch.Tensor) -> Hashable:
    """Equal for two tensors if strides make one of the other; a wrapper's memory is its own."""
    if not _torch.is_fake(tensor):
        return id(tensor)
    return _torch.storage_of(tensor), tensor.dtype, tensor.is_conj(), tensor.is_neg()


def _inputs(graph: Graph, run: Sequence[fx.Node]) -> tuple[fx.Node, ...]:
    """The nodes from outside a run that it reads, in the order it first reads them."""
    inside = set(run)
    reads = (read for node in run for read in graph.reads(node))
    return tuple(dict.fromkeys(read for read in reads if read not in inside))


def _is_inlined(run: Sequence[fx.Node], splitting: frozenset[fx.Node]) -> bool:
    """Whether a run holds only splitting ops, and what goes with them."""
    others = (n for n in run if n not in splitting and not _is_item(n) and n.op != "get_attr")
    return bool(splitting.intersection(run)) and all(map(_is_allocation, others))


LAYERS = 8
"""A piece that came from more submodules is said to come from the one they are all in."""


def _layers(run: Sequence[fx.Node], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Paths of the submodules a run came from: the one it is all of, or the outermost parts."""
    stacks = [stack for node in run if (stack := paths_of(node))]
    common = _common_start(stacks)
    inside = sum(len(stack) >= len(common) for stack in stacks)
    parts = dict.fromkeys(stack[len(common)] for stack in stacks if len(stack) > len(common))
    whole = bool(common) and sizes[common[-1]] == inside
    if whole or not parts or len(parts) > LAYERS:
        return tuple(common[-1:])
    return tuple(parts)


def _common_start(stacks: Sequence[list[str]]) -> list[str]:
    same = itertools.takewhile(lambda paths: len(set(paths)) == 1, zip(*stacks, strict=False))
    return [paths[0] for paths in same]


# --- tuples ---------------------------------------------------------------------------------------


def _is_item(node: fx.Node) -> bool:
    """Whether a node takes one item out of a tuple that another node made."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, fx.Node) and isinstance(example_of(source), tuple | list)


def _take_tuples_apart(graph: fx.Graph) -> None:
    """Move every `getitem` next to the node that made the tuple, and let only items be used.

    Where a tuple is used whole, the use gets a tuple of items, so that only tensors flow.
    """
    for node in list(graph.nodes):
        if node.op not in ("placeholder", "output"):
            _take_apart(graph, node)


def _take_apart(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Take the tuple that a node makes apart, and tuples in it; the last node of it all."""
    example = example_of(node)
    if not isinstance(example, tuple | list) or not tensors_in(example):
        return node
    items = _gather_items(graph, node, len(example))
    whole = [user for user in node.users if user not in items.values()]
    last = node
    for index, item in enumerate(example):
        if index not in items and whole and tensors_in(item):
            with graph.inserting_after(last):
                items[index] = graph.call_function(operator.getitem, (node, index))
            items[index].meta = {**node.meta, "example_value": item}
        if index in items:
            last.append(items[index])
            last = _take_apart(graph, items[index])
    parts = tuple(items.get(index, item) for index, item in enumerate(example))
    for user in whole:
        user.args = _with_parts(user.args, node, parts)
        user.kwargs = _with_parts(user.kwargs, node, parts)
    return last


def _gather_items(graph: fx.Graph, node: fx.Node, length: int) -> dict[int, fx.Node]:
    """The one node that takes each item of a tuple; further ones are removed."""
    items: dict[int, fx.Node] = {}
    for user in list(node.users):
        if user.target is operator.getitem and isinstance(user.args[1], int):
            first = items.setdefault(user.args[1] % length, user)
            if first is not user:
                user.replace_all_uses_with(first)
                graph.erase_node(user)
    return items


def _with_parts(args: Any, node: fx.Node, parts: tuple[Any, ...]) -> Any:
    """Arguments with a tuple of parts in place of a node."""
    return fx.node.map_arg(args, lambda n: parts if n is node else n)


def _bring_attributes(graph: fx.Graph) -> None:
    """Give every use of what the graph holds, such as a sub-graph, a `get_attr` right before it."""
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        for user in list(node.users):
            with graph.inserting_before(user):
                copy = graph.node_copy(node)
            user.replace_input_with(node, copy)
        graph.erase_node(node)
