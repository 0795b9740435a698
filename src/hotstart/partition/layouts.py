"""Find the arguments whose layout in memory a graph depends on.

An argument in another layout than the compiled one is copied. That is right unless forward reads
strides: in Python (`x.is_contiguous()`), in an operator (`as_strided`, a view that only some
layouts allow, a custom operator), or by writing to a result that is a view in one layout and a copy
in another. The graph is run on fake tensors with arguments in other layouts, and everything that
depends on strides is compared with the trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.graphs.nodes import short_name
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.running.modes import left_transforms
from hotstart.capture.captured import example_of, tensors_in
from hotstart.dtypes import dtype_of
from hotstart.partition.at_sizes import (
    AtSizes,
    Refused,
    Strides,
    Unknown,
    is_foreign,
    reads_strides,
    sharing,
    strides_of,
    telling_sizes,
    written_storages,
)
from hotstart.partition.graph import Graph
from hotstart.records.contract import Layout, TensorSpec
from hotstart.records.dims import Dim
from hotstart.records.layout import strides_fit
from hotstart.records.shapes import dense_strides

STRICTNESS: tuple[Layout, ...] = ("copied", "fixed", "exact")
"""Requirements on a layout, from none to the exact strides."""


def strictest(needs: Sequence[Layout]) -> Layout:
    """Choose the one of several needs that satisfies all."""
    return max(needs, key=STRICTNESS.index, default="copied")


def layouts_read(
    graph: Graph, tensors: Sequence[TensorSpec], axes: Sequence[Dim], hints: Mapping[str, int]
) -> dict[int, Layout]:
    """Find the arguments that must have the compiled layout, by slot.

    Args:
        graph: the graph.
        tensors: the arguments.
        axes: the dynamic dimensions.
        hints: the sizes the graph was traced with.
    """
    probe = _Probe(graph, tensors, telling_sizes(graph, axes, hints))
    every = {slot: ways for slot in range(len(tensors)) if (ways := probe.ways(slot))}
    if not probe.depends(every):
        return {}
    found = {slot: probe.depends({slot: ways}) for slot, ways in every.items()}
    needs: dict[int, Layout] = {slot: need for slot, need in found.items() if need}
    # Several together may change what none does alone.
    together = probe.depends({slot: ways for slot, ways in every.items() if slot not in needs})
    return dict.fromkeys(every, "exact") if together else needs


class _Probe:
    """Runs a graph with arguments in other layouts.

    Nodes that a changed layout does not reach get their traced values.
    """

    def __init__(self, graph: Graph, tensors: Sequence[TensorSpec], sizes: Mapping[str, int]):
        self._graph = graph
        self._captured = graph.captured
        self._tensors = tensors
        self._sizes = sizes
        self._at = AtSizes(graph, sizes)
        self._arguments = {
            node: slot.index for node, slot in graph.placeholders.items() if slot.kind == "arg"
        }
        self._known = {*graph.placeholders, *graph.nodes}
        self._written = written_storages(graph)
        self._returned = set(graph.returned())
        self._asking = self._lead_to_questions()

    def ways(self, slot: int) -> tuple[Strides, ...]:
        """List the strides of other layouts of an argument."""
        spec = self._tensors[slot]
        shape = spec.shape_at(self._sizes)
        return tuple(_other_strides(shape, spec.dim_order))

    def depends(self, ways: Mapping[int, Sequence[Strides]]) -> Layout | None:
        """Tell how strictly the graph depends on some arguments' layouts; None if it does not."""
        rounds = max(map(len, ways.values()), default=0)
        runs = ({s: found[n % len(found)] for s, found in ways.items()} for n in range(rounds))
        with self._at.mode, torch.no_grad(), left_transforms():
            found = strictest([need for strides in runs for need in self._needs(strides)])
        return None if found == "copied" else found

    def _needs(self, strides: Mapping[int, Strides]) -> Iterator[Layout]:
        changed: dict[fx.Node, Any] = {
            node: self._argument(slot, strides[slot])
            for node, slot in self._arguments.items()
            if slot in strides
        }
        try:
            yield from self._operators(changed)
            yield from self._questions(changed, strides)
        except Unknown:
            yield "exact"

    # --- operators --------------------------------------------------------------------------------

    def _operators(self, changed: dict[fx.Node, Any]) -> Iterator[Layout]:
        """Run every node that the layouts reach; `changed` gets the results that differ."""
        for node in self._graph.nodes:
            reads = self._graph.reads(node)
            if node not in self._asking or not any(read in changed for read in reads):
                continue
            if node in self._graph.numbers:  # stitched code gives its result the traced strides
                continue
            if reads_strides(self._captured.module, node):
                alone = node.args and node.args[0] in self._arguments and not is_foreign(node)
                yield "fixed" if alone else "exact"
                return  # the rest is not as traced
            plain = self._at.plain_result(node)
            try:
                found = self._at.call(node, changed)
            except Refused:  # eager raises for this layout, too
                yield "fixed"
                return
            before = [t for read in reads for t in tensors_in(self._at.plain(read))]
            after = [t for read in reads for t in tensors_in(self._at.now(read, changed))]
            same_memory = sharing(plain, before) == sharing(found, after)
            if not same_memory and self._matters(node):
                yield "fixed"
            if not same_memory or strides_of(plain) != strides_of(found):
                changed[node] = found

    def _lead_to_questions(self) -> set[fx.Node]:
        """Find the nodes whose strides may reach a node that reads strides; only these are run."""
        wanted = {node for node in self._captured.layout_reads.steps if node in self._known}
        for node in reversed(self._graph.nodes):
            if node in wanted or self._asks(node):
                wanted.update((node, *self._graph.reads(node)))
        return wanted

    def _asks(self, node: fx.Node) -> bool:
        """Tell whether a node reads strides, refuses some, or is a view for some only."""
        name = short_name(node)
        if name in _REFUSING or reads_strides(self._captured.module, node):
            return True
        inputs = [t for read in self._graph.reads(node) for t in tensors_in(example_of(read))]
        made = sharing(example_of(node), inputs)
        views = any(shares and not same for pairs in made for shares, same in pairs)
        return (views or name in _BY_LAYOUT) and self._matters(node)

    def _matters(self, node: fx.Node) -> bool:
        """Tell whether sharing memory matters: it is written to, or an argument is returned."""
        nodes = (node, *self._graph.reads(node))
        examples = (t for one in nodes for t in tensors_in(example_of(one)))
        written = any(storage_of(example) in self._written for example in examples)
        inputs = {id(example_of(placeholder)) for placeholder in self._arguments}
        return written or (node in self._returned and id(example_of(node)) in inputs)

    # --- questions of Python code -----------------------------------------------------------------

    def _questions(
        self, changed: Mapping[fx.Node, Any], strides: Mapping[int, Strides]
    ) -> Iterator[Layout]:
        asked = self._captured.layout_reads
        values: dict[fx.Node, Any] = dict(changed)
        for read in asked.reads:
            found = [self._value(node, values, strides) for node in read.nodes]
            plain = [self._at.plain(node) for node in read.nodes]
            alone = all(asked.steps[node].op == "placeholder" for node in read.nodes)
            if read.asked == "identity":
                if len({*map(id, found)}) != len({*map(id, plain)}):
                    yield "fixed"
            elif read.asked == "contiguity" and alone:
                if not strides_fit(found[0], plain[0].stride()):
                    yield "fixed"
            elif strides_of(found) != strides_of(plain):
                yield "exact"

    def _value(
        self, node: fx.Node, values: dict[fx.Node, Any], strides: Mapping[int, Strides]
    ) -> Any:
        """Compute a node for changed arguments, also one that is no longer in the graph."""
        if node in values or node in self._known:
            return self._at.now(node, values)
        step = self._captured.layout_reads.steps[node]
        if step.op == "placeholder":
            slot = self._captured.read_arguments.get(node)
            if slot is None:
                raise Unknown  # of a function that an operator runs
            values[node] = (
                self._argument(slot, strides[slot]) if slot in strides else self._at.plain(node)
            )
            return values[node]
        changed = False

        def leaf(item: Any) -> Any:
            nonlocal changed
            if not isinstance(item, fx.Node):
                return self._at.number(item)
            found = self._value(item, values, strides)
            changed = changed or found is not self._at.plain(item)
            return found

        args, kwargs = map_aggregate((step.args, step.kwargs), leaf)
        if not changed or not tensors_in(example_of(node)):
            values[node] = self._at.plain(node)
            return values[node]
        try:
            values[node] = self._at.run(step, args, kwargs)
        except Refused as error:
            raise Unknown from error
        return values[node]

    # --- values -----------------------------------------------------------------------------------

    def _argument(self, slot: int, strides: Strides) -> torch.Tensor:
        spec = self._tensors[slot]
        shape = spec.shape_at(self._sizes)
        dtype = dtype_of(spec.dtype)
        return torch.empty_strided(shape, strides, dtype=dtype, device=spec.device)


def _other_strides(shape: Sequence[int], compiled: Sequence[int]) -> Iterator[Strides]:
    """Make strides of other layouts: with dimensions in another order, with gaps, and expanded."""
    rank = len(shape)
    if rank == 0:
        return
    plain = tuple(range(rank))
    orders = [plain, plain[::-1]]
    if rank > 2:
        orders += [(*plain[:-2], rank - 1, rank - 2), (1, 0, *plain[2:])]
    if rank in (4, 5):
        orders.append((0, *plain[2:], 1))
    own = dense_strides(shape, compiled)
    inner = compiled[-1]
    wider = dense_strides([n * (2 if dim == inner else 1) for dim, n in enumerate(shape)], compiled)
    found = [dense_strides(shape, order) for order in orders]
    found += [tuple(2 * step for step in own), wider, (0, *own[1:]), (0,) * rank]
    yield from (strides for strides in dict.fromkeys(found) if strides != own)


_REFUSING = frozenset({"view", "view_as", "view_as_complex", "_unsafe_view", "unflatten"})
"""Operators that raise for some layouts."""

_BY_LAYOUT = frozenset({"reshape", "reshape_as", "flatten", "ravel", "contiguous", "to"})
"""Operators that return a view of their input in some layouts, and a copy in others."""
