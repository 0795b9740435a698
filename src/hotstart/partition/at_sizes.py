"""Run nodes of a graph on fake tensors at known sizes, with some of them laid out otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.dynamo.layout_reads import Step
from hotstart._torch.graphs.nodes import attribute_of, short_name
from hotstart._torch.graphs.operator_types import OpOverloadPacket
from hotstart._torch.graphs.symbols import failures_unlogged, fake_mode, holds_at, is_fake
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import was_mutated
from hotstart.capture.captured import example_of, tensors_in
from hotstart.partition.data_sizes import NumberSizes
from hotstart.partition.graph import Graph
from hotstart.partition.operator_names import operator_name
from hotstart.partition.tokens import came_with_torch
from hotstart.partition.zero_and_one import ORDINARY
from hotstart.records.dims import Dim

Strides = tuple[int, ...]

_LARGE = 1 << 40
"""Bytes of a made-up storage, which no tensor exceeds."""

_STRIDED = frozenset({"as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter"})


class Unknown(Exception):
    """A value is unknown."""


class Refused(Exception):
    """A node raises for the inputs it is given."""


def telling_sizes(graph: Graph, axes: Sequence[Dim], hints: Mapping[str, int]) -> dict[str, int]:
    """Choose sizes that the graph serves, above 1 if possible: at size 1, strides say little."""
    sizes = {**hints, **graph.captured.fixed}
    conditions = [condition.expr for condition in graph.captured.conditions]
    for dim in axes:
        larger = range(max(ORDINARY, dim.min), min(dim.max, 8) + 1)
        if sizes[dim.name] < ORDINARY and dim.name not in graph.captured.fixed:
            tried = ({**sizes, dim.name: size} for size in larger)
            fitting = (at for at in tried if all(holds_at(c, at) for c in conditions))
            sizes = next(fitting, sizes)
    return NumberSizes(graph.captured).at(sizes) or sizes


class AtSizes:
    """The values of a graph's nodes at some sizes.

    Nodes outside of the changed ones have their traced values.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph = graph
        self.mode = fake_mode()
        self._substitution = graph.substitution(sizes)
        self._made: dict[int, torch.Tensor] = {}
        self._storages: dict[int, torch.Tensor] = {}
        self._results: dict[fx.Node, Any] = {}

    def call(self, node: fx.Node, changed: Mapping[fx.Node, Any]) -> Any:
        """Run a node.

        Raises:
            Refused: it raises.
            Unknown: an input is unknown.
        """

        def leaf(item: Any) -> Any:
            return self.now(item, changed) if isinstance(item, fx.Node) else self.number(item)

        arguments = (self.graph.args(node), self.graph.kwargs(node))
        return self.run(node, *map_aggregate(arguments, leaf))

    def run(self, node: fx.Node | Step, args: Any, kwargs: Any) -> Any:
        """Run what a node calls."""
        try:
            with failures_unlogged():
                return self.graph.call(node, args, kwargs)
        except Exception as error:
            raise Refused from error

    def plain_result(self, node: fx.Node) -> Any:
        """Run a node on inputs as traced."""
        if node not in self._results:
            try:
                self._results[node] = self.call(node, {})
            except Refused as error:
                raise Unknown from error
        return self._results[node]

    def now(self, node: fx.Node, changed: Mapping[fx.Node, Any]) -> Any:
        """Look up the changed value of a node, or the traced one."""
        return changed[node] if node in changed else self.plain(node)

    def plain(self, node: fx.Node) -> Any:
        """Look up the traced value of a node."""
        example = example_of(node)
        if node.op == "get_attr" and not isinstance(example, torch.Tensor):
            return attribute_of(self.graph.captured.module, str(node.target))
        return map_aggregate(example, self._number_or_tensor)

    def _number_or_tensor(self, value: Any) -> Any:
        return self._tensor(value) if isinstance(value, torch.Tensor) else self.number(value)

    def _tensor(self, example: torch.Tensor) -> torch.Tensor:
        made = self._made.get(id(example))
        if made is not None:
            return made
        if example.layout is not torch.strided or not is_fake(example):
            raise Unknown
        storage = storage_of(example)
        if storage not in self._storages:
            self._storages[storage] = torch.empty(_LARGE, dtype=torch.uint8, device=example.device)
        memory = self._storages[storage].view(example.dtype)
        shape, strides = (
            [self.number(number) for number in numbers]
            for numbers in (example.shape, example.stride())
        )
        made = memory.as_strided(shape, strides, self.number(example.storage_offset()))
        self._made[id(example)] = made
        return made

    def number(self, value: Any) -> Any:
        """Evaluate a number of the graph."""
        known = self.graph.number_at(value, self._substitution)
        if hasattr(known, "free_symbols"):
            raise Unknown
        return known


def written_storages(graph: Graph) -> frozenset[int]:
    """Find the storages that a graph writes to."""
    nodes = (*graph.placeholders, *graph.nodes)
    examples = (tensor for node in nodes for tensor in tensors_in(example_of(node)))
    return frozenset(storage_of(t) for t in examples if was_mutated(t))


def reads_strides(module: torch.nn.Module, node: fx.Node) -> bool:
    """Tell whether an operator reads the strides of its inputs, itself or in a function it runs."""
    if short_name(node) in _STRIDED or is_foreign(node):
        return True
    bodies = (
        attribute_of(module, str(arg.target))  # type: ignore[arg-type]
        for arg in node.all_input_nodes
        if arg.op == "get_attr"
    )
    return any(
        reads_strides(body, inner)
        for body in bodies
        if isinstance(body, fx.GraphModule)
        for inner in body.graph.nodes
    )


def is_foreign(node: fx.Node) -> bool:
    """Tell whether a node calls an operator of the user's that may read strides.

    torch.compile gives such operators the strides eager gives them, unless a tag says that none
    matter.
    """
    name = operator_name(node.target)
    if not name or came_with_torch(name):
        return False
    target: Any = node.target
    packet = isinstance(target, OpOverloadPacket)
    overloads = [getattr(target, o) for o in target.overloads()] if packet else [target]
    return not all(torch.Tag.flexible_layout in overload.tags for overload in overloads)


def strides_of(value: Any) -> list[Strides]:
    """List the strides of the tensors in a value."""
    return [tuple(tensor.stride()) for tensor in tensors_in(value)]


def sharing(value: Any, inputs: Sequence[torch.Tensor]) -> list[tuple[tuple[bool, bool], ...]]:
    """Tell for each tensor and input whether they share memory, and whether they are one object."""
    memory = [storage_of(tensor) for tensor in inputs]
    return [
        tuple(
            (storage_of(tensor) == storage, tensor is other)
            for storage, other in zip(memory, inputs, strict=True)
        )
        for tensor in tensors_in(value)
    ]
