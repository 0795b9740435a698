"""Find the arguments whose layout in memory a graph depends on.

An argument of another layout than the compiled one is copied, which is right unless forward reads
strides: in Python (`x.is_contiguous()`), in an operator (`as_strided`, a view that only some
layouts allow, an operator of the user's), or by writing to what is a view in one layout and a copy
in another. The graph is run on fake tensors with arguments in other layouts, as far as these change
anything, and all that depends on strides is compared with what was traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart import _torch
from hotstart.capture.captured import example_of, tensors_in
from hotstart.dtypes import dtype_of
from hotstart.partition.digest import came_with_torch
from hotstart.partition.names import operator_name
from hotstart.partition.plan import Graph
from hotstart.partition.zero_and_one import ORDINARY
from hotstart.records.artifact import Layout, TensorSpec
from hotstart.records.layout import dense_strides, strides_fit
from hotstart.records.shapes import Dim

Strides = tuple[int, ...]

STRICTNESS: tuple[Layout, ...] = ("copied", "fixed", "exact")
"""How much of a layout becomes part of the contract, from nothing to everything."""

_LARGE = 1 << 40
"""Bytes of a made-up storage, which no tensor exceeds."""


class _Unknown(Exception):
    """A value is unknown."""


class _Refused(Exception):
    """A node raises for the inputs it is given."""


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
    probe = _Probe(graph, tensors, _telling_sizes(graph, axes, hints))
    every = {slot: ways for slot in range(len(tensors)) if (ways := probe.ways(slot))}
    if not probe.depends(every):
        return {}
    found = {slot: probe.depends({slot: ways}) for slot, ways in every.items()}
    needs: dict[int, Layout] = {slot: need for slot, need in found.items() if need}
    # Several together may change what none does alone.
    together = probe.depends({slot: ways for slot, ways in every.items() if slot not in needs})
    return dict.fromkeys(every, "exact") if together else needs


def _telling_sizes(graph: Graph, axes: Sequence[Dim], hints: Mapping[str, int]) -> dict[str, int]:
    """Choose sizes that the graph serves, above 1 if possible: at size 1, strides say little."""
    sizes = {**hints, **graph.captured.fixed}
    conditions = [condition.expr for condition in graph.captured.conditions]
    for dim in axes:
        larger = range(max(ORDINARY, dim.min), min(dim.max, 8) + 1)
        if sizes[dim.name] < ORDINARY and dim.name not in graph.captured.fixed:
            tried = ({**sizes, dim.name: size} for size in larger)
            fitting = (at for at in tried if all(_torch.holds_at(c, at) for c in conditions))
            sizes = next(fitting, sizes)
    return sizes


class _Probe:
    """Runs a graph with arguments in other layouts.

    Nodes that a changed layout does not reach get their traced values.
    """

    def __init__(self, graph: Graph, tensors: Sequence[TensorSpec], sizes: Mapping[str, int]):
        self._graph = graph
        self._captured = graph.captured
        self._tensors = tensors
        self._sizes = sizes
        self._substitution = _torch.substitution(sizes)
        self._mode = _torch.fake_mode()
        self._arguments = {
            node: slot.index for node, slot in graph.placeholders.items() if slot.kind == "arg"
        }
        self._known = {*graph.placeholders, *graph.nodes}
        self._made: dict[int, torch.Tensor] = {}
        self._storages: dict[int, torch.Tensor] = {}
        self._results: dict[fx.Node, Any] = {}
        examples = [t for node in self._known for t in tensors_in(example_of(node))]
        self._written = {_torch.storage_of(t) for t in examples if _torch.was_mutated(t)}
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
        with self._mode, torch.no_grad():
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
        except _Unknown:
            yield "exact"

    # --- operators --------------------------------------------------------------------------------

    def _operators(self, changed: dict[fx.Node, Any]) -> Iterator[Layout]:
        """Run every node that the layouts reach; `changed` gets the results that differ."""
        for node in self._graph.nodes:
            reads = self._graph.reads(node)
            if node not in self._asking or not any(read in changed for read in reads):
                continue
            if _reads_strides(self._captured.module, node):
                alone = node.args and node.args[0] in self._arguments and not _is_foreign(node)
                yield "fixed" if alone else "exact"
                return  # the rest is not as traced
            plain = self._plain_result(node)
            try:
                found = self._call(node, changed)
            except _Refused:  # eager raises for this layout, too
                yield "fixed"
                return
            before = [t for read in reads for t in tensors_in(self._plain(read))]
            after = [t for read in reads for t in tensors_in(self._now(read, changed))]
            same_memory = _sharing(plain, before) == _sharing(found, after)
            if not same_memory and self._matters(node):
                yield "fixed"
            if not same_memory or _strides(plain) != _strides(found):
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
        name = _name(node)
        if name in _REFUSING or _reads_strides(self._captured.module, node):
            return True
        inputs = [t for read in self._graph.reads(node) for t in tensors_in(example_of(read))]
        made = _sharing(example_of(node), inputs)
        views = any(shares and not same for pairs in made for shares, same in pairs)
        return (views or name in _BY_LAYOUT) and self._matters(node)

    def _matters(self, node: fx.Node) -> bool:
        """Tell whether sharing memory matters: it is written to, or an argument is returned."""
        nodes = (node, *self._graph.reads(node))
        examples = (t for one in nodes for t in tensors_in(example_of(one)))
        written = any(_torch.storage_of(example) in self._written for example in examples)
        inputs = {id(example_of(placeholder)) for placeholder in self._arguments}
        return written or (node in self._returned and id(example_of(node)) in inputs)

    def _call(self, node: fx.Node, changed: Mapping[fx.Node, Any]) -> Any:
        def leaf(item: Any) -> Any:
            return self._now(item, changed) if isinstance(item, fx.Node) else self._number(item)

        return self._run(
            node, *map_aggregate((self._graph.args(node), self._graph.kwargs(node)), leaf)
        )

    def _run(self, node: fx.Node | _torch.Step, args: Any, kwargs: Any) -> Any:
        try:
            return self._graph.call(node, args, kwargs)
        except Exception as error:
            raise _Refused from error

    def _plain_result(self, node: fx.Node) -> Any:
        """Run a node on inputs as traced, at these sizes."""
        if node not in self._results:
            try:
                self._results[node] = self._call(node, {})
            except _Refused as error:
                raise _Unknown from error
        return self._results[node]

    # --- questions of Python code -----------------------------------------------------------------

    def _questions(
        self, changed: Mapping[fx.Node, Any], strides: Mapping[int, Strides]
    ) -> Iterator[Layout]:
        asked = self._captured.layout_reads
        values: dict[fx.Node, Any] = dict(changed)
        for read in asked.reads:
            found = [self._value(node, values, strides) for node in read.nodes]
            plain = [self._plain(node) for node in read.nodes]
            alone = all(asked.steps[node].op == "placeholder" for node in read.nodes)
            if read.asked == "identity":
                if len({*map(id, found)}) != len({*map(id, plain)}):
                    yield "fixed"
            elif read.asked == "contiguity" and alone:
                if not strides_fit(found[0], plain[0].stride()):
                    yield "fixed"
            elif _strides(found) != _strides(plain):
                yield "exact"

    def _value(
        self, node: fx.Node, values: dict[fx.Node, Any], strides: Mapping[int, Strides]
    ) -> Any:
        """Compute a node for changed arguments, also one that is no longer in the graph."""
        if node in values or node in self._known:
            return self._now(node, values)
        step = self._captured.layout_reads.steps[node]
        if step.op == "placeholder":
            slot = self._captured.read_arguments.get(node)
            if slot is None:
                raise _Unknown  # of a function that an operator runs
            values[node] = (
                self._argument(slot, strides[slot]) if slot in strides else self._plain(node)
            )
            return values[node]
        changed = False

        def leaf(item: Any) -> Any:
            nonlocal changed
            if not isinstance(item, fx.Node):
                return self._number(item)
            found = self._value(item, values, strides)
            changed = changed or found is not self._plain(item)
            return found

        args, kwargs = map_aggregate((step.args, step.kwargs), leaf)
        if not changed or not tensors_in(example_of(node)):
            values[node] = self._plain(node)
            return values[node]
        try:
            values[node] = self._run(step, args, kwargs)
        except _Refused as error:
            raise _Unknown from error
        return values[node]

    # --- values -----------------------------------------------------------------------------------

    def _now(self, node: fx.Node, changed: Mapping[fx.Node, Any]) -> Any:
        return changed[node] if node in changed else self._plain(node)

    def _argument(self, slot: int, strides: Strides) -> torch.Tensor:
        spec = self._tensors[slot]
        shape = spec.shape_at(self._sizes)
        dtype = dtype_of(spec.dtype)
        return torch.empty_strided(shape, strides, dtype=dtype, device=spec.device)

    def _plain(self, node: fx.Node) -> Any:
        """Look up the traced value of a node, at these sizes."""
        example = example_of(node)
        if node.op == "get_attr" and not isinstance(example, torch.Tensor):
            return _torch.attribute_of(self._captured.module, str(node.target))
        return map_aggregate(example, self._number_or_tensor)

    def _number_or_tensor(self, value: Any) -> Any:
        return self._tensor(value) if isinstance(value, torch.Tensor) else self._number(value)

    def _tensor(self, example: torch.Tensor) -> torch.Tensor:
        made = self._made.get(id(example))
        if made is not None:
            return made
        if example.layout is not torch.strided or not _torch.is_fake(example):
            raise _Unknown
        storage = _torch.storage_of(example)
        if storage not in self._storages:
            self._storages[storage] = torch.empty(_LARGE, dtype=torch.uint8, device=example.device)
        memory = self._storages[storage].view(example.dtype)
        shape, strides = (
            [self._number(number) for number in numbers]
            for numbers in (example.shape, example.stride())
        )
        made = memory.as_strided(shape, strides, self._number(example.storage_offset()))
        self._made[id(example)] = made
        return made

    def _number(self, value: Any) -> Any:
        known = self._graph.number_at(value, self._substitution)
        if hasattr(known, "free_symbols"):
            raise _Unknown
        return known


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


_STRIDED = frozenset({"as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter"})


_REFUSING = frozenset({"view", "view_as", "view_as_complex", "_unsafe_view", "unflatten"})
"""Operators that raise for some layouts."""

_BY_LAYOUT = frozenset({"reshape", "reshape_as", "flatten", "ravel", "contiguous", "to"})
"""Operators that return a view of their input in some layouts, and a copy in others."""


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def _reads_strides(module: torch.nn.Module, node: fx.Node) -> bool:
    """Tell whether an operator reads the strides of its inputs, itself or in a function it runs."""
    if _name(node) in _STRIDED or _is_foreign(node):
        return True
    bodies = (
        _torch.attribute_of(module, str(arg.target))  # type: ignore[arg-type]
        for arg in node.all_input_nodes
        if arg.op == "get_attr"
    )
    return any(
        _reads_strides(body, inner)
        for body in bodies
        if isinstance(body, fx.GraphModule)
        for inner in body.graph.nodes
    )


def _is_foreign(node: fx.Node) -> bool:
    """Tell whether a node calls an operator of the user's that may read strides.

    torch.compile gives such operators the strides eager gives them, unless a tag says that none
    matter.
    """
    name = operator_name(node.target)
    if not name or came_with_torch(name):
        return False
    target: Any = node.target
    packet = isinstance(target, _torch.OpOverloadPacket)
    overloads = [getattr(target, o) for o in target.overloads()] if packet else [target]
    return not all(torch.Tag.flexible_layout in overload.tags for overload in overloads)


def _strides(value: Any) -> list[Strides]:
    return [tuple(tensor.stride()) for tensor in tensors_in(value)]


def _sharing(value: Any, inputs: Sequence[torch.Tensor]) -> list[tuple[tuple[bool, bool], ...]]:
    """Tell for each tensor and input whether they share memory, and whether they are one object."""
    memory = [_torch.storage_of(tensor) for tensor in inputs]
    return [
        tuple(
            (_torch.storage_of(tensor) == storage, tensor is other)
            for storage, other in zip(memory, inputs, strict=True)
        )
        for tensor in tensors_in(value)
    ]
