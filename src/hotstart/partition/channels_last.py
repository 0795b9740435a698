"""Have pieces hand each other images channels last, as convolutions on packed weights take them.

A graph is traced with images laid out as in eager: contiguous, mostly. A convolution with a packed
weight takes its input and gives its result channels last. Within a piece the compiler arranges
that. Between pieces it would write every image as traced, and the next piece would convert it
again. So the piece that makes an image gets a node `contiguous(memory_format=...)` at its end,
which later pieces read instead. It costs nothing where the image is channels last already.

Layouts matter only to operators that read strides, and to views that only some layouts allow. These
get their traced layout, by a `contiguous()` before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import short_name
from hotstart._torch.graphs.values import like_in_format, storage_of
from hotstart._torch.running.modes import left_transforms
from hotstart._torch.running.operators import operator_schemas
from hotstart.capture.captured import example_of, tensors_in
from hotstart.partition.at_sizes import (
    AtSizes,
    Refused,
    Unknown,
    is_foreign,
    reads_strides,
    sharing,
    strides_of,
    telling_sizes,
    written_storages,
)
from hotstart.partition.cut import Run
from hotstart.partition.graph import Graph
from hotstart.partition.operator_names import operator_name
from hotstart.partition.tokens import came_with_torch
from hotstart.records.dims import Dim

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The memory format of images and of volumes."""

_CONVOLUTIONS = frozenset(
    {
        "conv2d",
        "conv3d",
        "conv_transpose2d",
        "conv_transpose3d",
        "convolution",
        "_convolution",
    }
)

_DECIDING = frozenset(
    {"adaptive_avg_pool2d", "adaptive_avg_pool3d", "group_norm", "view", "view_as", "unflatten"}
)
"""Operators that get the traced layout: they branch on strides in ways that depend on the batch
size, so a range with 1 in it would be split. The compiler reads through the copy."""


@dataclass
class _Changes:
    """Nodes to be put into a graph.

    Attributes:
        laid_out: nodes whose tensors later pieces are to get channels last.
        restored: the inputs that a node is to get as traced.
    """

    laid_out: list[fx.Node] = field(default_factory=list)
    restored: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)


def with_channels_last(
    graph: Graph, runs: Sequence[Run], axes: Sequence[Dim], hints: Mapping[str, int]
) -> tuple[Graph, tuple[Run, ...]]:
    """Have images cross cuts channels last where convolutions make them so.

    Args:
        graph: the graph; nodes are put into it.
        runs: the runs of nodes that become pieces.
        axes: the dynamic dimensions.
        hints: the sizes the graph was traced with.

    Returns:
        The graph and the runs with the nodes that lay out images.
    """
    if len(runs) < 2 or not any(map(_convolves, graph.nodes)):
        return graph, tuple(runs)
    sizes = telling_sizes(graph, axes, hints)
    try:
        changes = _Images(graph, runs, sizes).changes()
    except (Refused, Unknown):
        return graph, tuple(runs)
    if not changes.laid_out:
        return graph, tuple(runs)
    made = _inserted(graph, runs, changes)
    return Graph(graph.captured), made


def _convolves(node: fx.Node) -> bool:
    """Tell whether a node is a convolution of floats on a CPU."""
    example = example_of(node)
    return (
        short_name(node) in _CONVOLUTIONS
        and isinstance(example, torch.Tensor)
        and example.ndim in _FORMATS
        and example.dtype is torch.float32
        and example.device.type == "cpu"
    )


class _Images:
    """Follows the images that convolutions make through a graph, at some sizes."""

    def __init__(self, graph: Graph, runs: Sequence[Run], sizes: Mapping[str, int]) -> None:
        self._graph = graph
        self._runs = runs
        self._at = AtSizes(graph, sizes)
        self._run_of = {node: number for number, run in enumerate(runs) for node in run.nodes}
        self._readers: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            for read in dict.fromkeys(graph.reads(node)):
                self._readers.setdefault(read, []).append(node)
        self._written = written_storages(graph)
        self._sharing: dict[int, list[fx.Node]] = {}
        for node in (*graph.placeholders, *graph.nodes):
            for tensor in tensors_in(example_of(node)):
                self._sharing.setdefault(storage_of(tensor), []).append(node)
        self._changed: dict[fx.Node, Any] = {}

    def changes(self) -> _Changes:
        """Find what is to be changed.

        Raises:
            Refused: an operator does not run on images that are channels last.
            Unknown: a value is unknown, or what a node writes to would be another tensor.
        """
        found = _Changes()
        with self._at.mode, torch.no_grad(), left_transforms():
            for number, run in enumerate(self._runs):
                for node in run.nodes:
                    self._follow(node, found)
                self._lay_out(run, number, found)
        return found

    def _lay_out(self, run: Run, number: int, found: _Changes) -> None:
        """Hand images of a run to later ones in the new layout, or else as they were traced."""
        for node in run.nodes:
            if node not in self._changed or not self._crosses(node, number):
                continue
            if self._can_be_laid_out(node, number):
                found.laid_out.append(node)
            else:
                del self._changed[node]

    def _follow(self, node: fx.Node, found: _Changes) -> None:
        """Run a node if the layout of an input is another than in the trace."""
        if _convolves(node):
            image = self._at.plain(node)
            self._changed[node] = image.clone(memory_format=_FORMATS[image.ndim])
            return
        reads = [read for read in self._graph.reads(node) if read in self._changed]
        if not reads:
            return
        try:
            if short_name(node) in _DECIDING or reads_strides(self._graph.captured.module, node):
                raise Refused
            made = self._at.call(node, self._changed)
        except Refused:
            self._restore(node, reads, found)
            return
        plain = self._at.plain_result(node)
        if self._shares_otherwise(node, plain, made) and self._writes_near(node):
            raise Unknown
        if strides_of(plain) != strides_of(made) or _same(made, reads, self._changed):
            self._changed[node] = made

    def _restore(self, node: fx.Node, reads: Sequence[fx.Node], found: _Changes) -> None:
        """Give a node its inputs in the traced layout."""
        inputs = [self._at.plain(read) for read in reads]
        shares = sharing(self._at.plain_result(node), inputs)
        reads_only = shares and not any(shared for pairs in shares for shared, _ in pairs)
        for read, plain in zip(reads, inputs, strict=True):
            written = any(storage_of(t) in self._written for t in tensors_in(example_of(read)))
            if not plain.is_contiguous() or (written and (not reads_only or is_foreign(node))):
                raise Unknown
        found.restored[node] = list(dict.fromkeys(reads))

    def _shares_otherwise(self, node: fx.Node, plain: Any, made: Any) -> bool:
        """Tell whether a result is a view of an input in one layout, and a copy in another."""
        reads = self._graph.reads(node)
        before = [t for read in reads for t in tensors_in(self._at.plain(read))]
        after = [t for read in reads for t in tensors_in(self._at.now(read, self._changed))]
        return sharing(plain, before) != sharing(made, after)

    def _writes_near(self, node: fx.Node) -> bool:
        """Tell whether the graph writes to what a node makes or reads."""
        nodes = (node, *self._graph.reads(node))
        examples = (tensor for one in nodes for tensor in tensors_in(example_of(one)))
        return any(storage_of(example) in self._written for example in examples)

    def _crosses(self, node: fx.Node, number: int) -> bool:
        return any(self._run_of[reader] > number for reader in self._readers.get(node, ()))

    def _can_be_laid_out(self, node: fx.Node, number: int) -> bool:
        """Tell whether later pieces can get a copy of a tensor: an image on memory of its own."""
        plain, made = self._at.plain(node), self._changed[node]
        if not isinstance(made, torch.Tensor) or made.ndim not in _FORMATS:
            return False
        later = [one for one in self._readers[node] if self._run_of[one] > number]
        runs = {number, *(self._run_of[one] for one in later)}
        storage = storage_of(example_of(node))
        sharing_it = [one for one in self._sharing[storage] if one is not node]
        return (
            made.is_contiguous(memory_format=_FORMATS[made.ndim])
            and plain.is_contiguous()
            and not plain.is_contiguous(memory_format=_FORMATS[made.ndim])
            and not any(self._runs[n].inlined for n in runs)
            and all(self._run_of.get(one) == number for one in sharing_it)
            and not any(self._crosses(one, number) for one in sharing_it)
            and (storage not in self._written or not any(map(_may_write, later)))
        )


def _same(made: Any, reads: Sequence[fx.Node], changed: Mapping[fx.Node, Any]) -> bool:
    """Tell whether a result is one of the changed inputs, which the node may have written to."""
    return any(made is changed[read] for read in reads)


def _may_write(node: fx.Node) -> bool:
    """Tell whether a node may write to an input that its result does not share memory with."""
    if not tensors_in(example_of(node)) or is_foreign(node):
        return True
    name = operator_name(node.target)
    return not came_with_torch(name) and any("!" in one for one in operator_schemas(name))


def _inserted(graph: Graph, runs: Sequence[Run], changes: _Changes) -> tuple[Run, ...]:
    """Put the nodes of changes into a graph, and into its runs."""
    made = []
    given: dict[fx.Node, fx.Node] = {}
    for run in runs:
        nodes: list[fx.Node] = []
        for node in run.nodes:
            nodes += _restored(node, changes.restored.get(node, ()), given)
            nodes.append(node)
        inside = set(nodes)
        for node in filter(changes.laid_out.__contains__, run.nodes):
            with graph.captured.graph.inserting_after(nodes[-1]):
                given[node] = _laid_out(node, _FORMATS[example_of(node).ndim], node)
            nodes.append(given[node])
            _hand_on(node, given[node], inside)
        made.append(replace(run, nodes=tuple(nodes)))
    return tuple(made)


def _restored(
    node: fx.Node, reads: Sequence[fx.Node], given: Mapping[fx.Node, fx.Node]
) -> Iterator[fx.Node]:
    """Make copies of inputs of a node in the traced layout, and have it read them."""
    for one in reads:
        read = given.get(one, one)
        with node.graph.inserting_before(node):
            copy = _laid_out(read, torch.contiguous_format, node)
        node.replace_input_with(read, copy)
        yield copy


def _hand_on(node: fx.Node, copy: fx.Node, inside: Set[fx.Node]) -> None:
    """Have later runs read a copy of a node."""
    for user in list(node.users):
        if user not in inside and user is not copy and user.op != "output":
            user.replace_input_with(node, copy)


def _laid_out(node: fx.Node, memory_format: torch.memory_format, beside: fx.Node) -> fx.Node:
    """Make a node that gives a tensor in a memory format."""
    new = node.graph.call_method("contiguous", (node,), {"memory_format": memory_format})
    new.meta = {
        **beside.meta,
        "example_value": like_in_format(example_of(node), memory_format),
    }
    return new
