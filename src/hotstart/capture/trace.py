"""Capture a model as one graph, with everything around the graph described as data."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.blocks.block_copy import NotRepeatedError
from hotstart._torch.dynamo.data_numbers import depends_on_data
from hotstart._torch.dynamo.decided_by_sizes import index_by_known_numbers
from hotstart._torch.dynamo.failures import asks_contents, describe_failure
from hotstart._torch.dynamo.full_graph import FullGraph, NoGraph, full_graph
from hotstart._torch.dynamo.gradients import begins_gradients, end_gradients
from hotstart._torch.dynamo.sides import Sides
from hotstart._torch.graphs.assertions import complete_examples, keep_checks
from hotstart._torch.graphs.nodes import drop_unused_views
from hotstart._torch.graphs.sides import ask_early
from hotstart._torch.graphs.symbols import (
    Condition,
    axis_symbol,
    conditions,
    fake_mode,
    substitution,
)
from hotstart._torch.graphs.writes import count_writes
from hotstart._torch.subclasses.inner_tensors import inner_names
from hotstart._torch.subclasses.subclass_calls import NotTakenApartError
from hotstart._torch.subclasses.taken_apart import TakenApart, take_apart
from hotstart.capture.alike_blocks import candidate_blocks, counterparts
from hotstart.capture.arguments import Arguments, example_tensor
from hotstart.capture.captured import Captured
from hotstart.capture.graph_outputs import numbers_read, size_source, viewed_inputs, written_inputs
from hotstart.capture.group_table import name_groups
from hotstart.capture.idle import find_idle
from hotstart.capture.known_buffers import Known, with_numbers_of_buffers
from hotstart.capture.lasting import require_lasting
from hotstart.capture.numbers import checked_numbers, find_numbers
from hotstart.capture.outputs import Outputs, describe_outputs
from hotstart.capture.plain import require_comparable, require_plain
from hotstart.capture.prepare import prepare
from hotstart.capture.refusals import (
    BranchOnContents,
    not_one_graph,
    refuse_collectives,
    refuse_contents,
    refuse_drawn_numbers,
    refuse_found_arguments,
    refuse_gradients,
    refuse_mixed_gradients,
    refuse_passed_groups,
    refuse_places,
    refuse_questions,
    refuse_replaced_memory,
    refuse_unknown,
)
from hotstart.capture.weight_table import WeightTable
from hotstart.errors import CaptureError
from hotstart.first_call.memo import NO_MEMO, Memo
from hotstart.guards.collect import collect
from hotstart.guards.wrapping import wrapping_of
from hotstart.model import Model, ModelIndex
from hotstart.records.dims import axes_of, size_at
from hotstart.records.nested import Slot

if TYPE_CHECKING:
    import sympy

log = logging.getLogger("hotstart")

_APART = "Use the plain tensors that it is made of there, or .dequantize() it"


class KeptTensorRead(CaptureError):
    """A graph reads a tensor that the next call of the model may replace."""


@dataclass(frozen=True)
class _Trace:
    """A trace of a call.

    Attributes:
        index, target, arguments, weights, fixed, memo: as `capture` takes them.
        tensors: the stand-ins for the tensors among the arguments.
        traced: what Dynamo made of the call.
        apart: maps the inputs that Dynamo gave the graph to its inputs with subclasses taken apart.
        settled: symbols whose value a check in the graph settles: see `keep_checks`.
    """

    index: ModelIndex
    target: Model
    arguments: Arguments
    weights: WeightTable
    fixed: Mapping[str, int]
    tensors: list[torch.Tensor]
    traced: FullGraph
    apart: TakenApart
    settled: Mapping[sympy.Symbol, sympy.Expr]
    memo: Memo

    @cached_property
    def numbers(self) -> dict[int, int]:
        """The slot of each of `tensors`, by identity."""
        return {id(tensor): number for number, tensor in enumerate(self.tensors)}


def capture(
    index: ModelIndex,
    target: Model,
    arguments: Arguments,
    weights: WeightTable,
    fixed: Mapping[str, int],
    hints: Mapping[str, int],
    blocks_once: bool,
    passed: Mapping[int, tuple[str, object]],
    memo: Memo = NO_MEMO,
    sides: tuple[bool, ...] | None = None,
) -> Captured:
    """Trace a call once.

    Args:
        index: of the model.
        target: what of it is called: itself, one of its methods or submodules.
        arguments: what it is called with.
        weights: the table of tensors that its graphs read.
        fixed: axes to trace at one size; the others are traced symbolically, over all sizes that
            are declared.
        hints: the sizes that select the path through the code.
        blocks_once: copy the nodes of a repeated block instead of tracing it again.
        passed: the caller's objects that the call is passed, with their names, by identity.
        memo: what the model keeps that a program does not.
        sides: of the first branches on what tensors hold; None if such a branch is an error.

    Raises:
        BranchOnContents: there is such a branch.
        CaptureError: a graph break, or an unsupported construct.
    """
    with fake_mode():
        tensors = [example_tensor(spec, hints) for spec in arguments.tensors]
    low = {**{dim.name: dim.min for dim in arguments.axes}, **fixed}
    high = {**{dim.name: dim.max for dim in arguments.axes}, **fixed}
    dynamic = [
        (tensor, at, size_at(size, low), size_at(size, high))
        for tensor, spec in zip(tensors, arguments.tensors, strict=True)
        for at, size in enumerate(spec.shape)
        if not set(axes_of(size)) <= fixed.keys()
    ]
    args, kwargs = arguments.call_with(tensors)
    trace = partial(_trace, target, args, kwargs, dynamic, passed, sides)
    traced = with_numbers_of_buffers(index, partial(_with_blocks_once, index, trace, blocks_once))
    refuse_mixed_gradients(traced.module.graph)
    end_gradients(traced.module.graph)
    complete_examples(traced.module.graph)
    index_by_known_numbers(traced.module.graph)
    apart = _without_subclasses(traced)
    traced = dataclasses.replace(traced, codes=traced.codes | apart.codes)
    count_writes(traced.module.graph)
    settled = keep_checks(traced.module.graph)
    refuse_contents(traced, settled)
    refuse_gradients(traced)
    refuse_replaced_memory(traced.module.graph)
    refuse_drawn_numbers(traced.module.graph)
    refuse_collectives(traced.module)
    refuse_passed_groups(traced)
    drop_unused_views(traced.module.graph)
    ask_early(traced.module.graph)
    refuse_places(traced.module.graph)
    refuse_questions(traced.layout_reads)
    refuse_found_arguments(traced)
    return _describe(
        _Trace(index, target, arguments, weights, fixed, tensors, traced, apart, settled, memo)
    )


def _with_blocks_once(
    index: ModelIndex,
    trace: Callable[[Mapping[int, torch.nn.Module], Known], FullGraph],
    blocks_once: bool,
    known: Known,
) -> FullGraph:
    """Trace repeated blocks once; if that fails for any reason, trace every call."""
    blocks = candidate_blocks(index) if blocks_once and not known else {}
    try:
        return trace(blocks, known)
    except Exception as error:
        if not blocks:
            raise
        log.debug("every block is traced for itself: %r", error)
    return trace({}, known)  # not above, where its errors would have that one as their cause


def _trace(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic: list[tuple[torch.Tensor, int, int, int]],
    passed: Mapping[int, tuple[str, object]],
    sides: tuple[bool, ...] | None,
    blocks: Mapping[int, torch.nn.Module],
    known: Known,
) -> FullGraph:
    try:
        way = None if sides is None else Sides(sides)
        found = full_graph(model, args, kwargs, dynamic, blocks, counterparts, passed, known, way)
        if blocks and begins_gradients(found.module.graph):
            raise NotRepeatedError("one level of gradients is around all blocks")
        return found
    except NoGraph:
        raise CaptureError(
            "forward contains no tensor operation, so there is nothing to compile. "
            "Call the model as it is."
        ) from None
    except Exception as error:
        failure = describe_failure(error)
        if failure is None:
            raise
        kind = BranchOnContents if asks_contents(error) else CaptureError
        raise not_one_graph(*failure, kind) from error


def _without_subclasses(traced: FullGraph) -> TakenApart:
    """Have a graph read the inner tensors of weights that are of tensor subclasses.

    Raises:
        CaptureError: it does something with one that its inner tensors cannot stand for, has one
            of torch's own, such as `DTensor`, which means more than them, or one whose context
            cannot be compared.
    """
    for node in traced.module.graph.find_nodes(op="placeholder"):
        value = node.meta.get("example_value")
        if isinstance(value, torch.Tensor) and inner_names(value):
            if type(value).__module__.startswith("torch."):
                require_plain(traced.name_of(node), value)
            require_comparable(traced.name_of(node), value)
    try:
        return take_apart(traced.module, wrapping_of)
    except NotTakenApartError as error:
        reason, line = error.args
        raise not_one_graph(
            line, f"a weight is of a tensor subclass, and {reason}", _APART
        ) from error


def _describe(trace: _Trace) -> Captured:
    """Describe what surrounds a traced graph, and give the graph the outputs that this needs."""
    traced, graph = trace.traced, trace.traced.module.graph
    inputs = tuple(_inputs(trace))
    axes = _axis_symbols(trace)
    numbers = find_numbers(traced, axes, trace.settled)
    refuse_unknown(traced, numbers, trace.settled)
    symbols = {**axes, **numbers.symbols}
    read = collect(trace.index, trace.target, traced, trace.memo)
    name_groups(graph, trace.weights.groups)
    for group in read.groups:
        trace.weights.groups.name(group)
    outputs = _describe_outputs(trace, inputs, symbols)
    guarded = checked_numbers(graph, symbols)
    prepare(graph, traced.plain_name)
    captured = Captured(
        graph=graph,
        module=traced.module,
        inputs=inputs,
        symbols=symbols,
        outputs=outputs.result,
        updates=outputs.updates,
        changes=outputs.changes,
        conditions=tuple(
            Condition(c.expr.xreplace({**symbols, **trace.settled}), c.source)
            for c in (*conditions(traced.env), *traced.decided)
            if not depends_on_data(c.expr, trace.settled)
        ),
        fixed=dict(trace.fixed),
        modes=_modes(trace.index, traced),
        read=read,
        layout_reads=traced.layout_reads,
        read_arguments={
            node: trace.numbers.get(id(traced.object_named(step.source)), -1)
            for node, step in traced.layout_reads.steps.items()
            if step.source
        },
        numbers=numbers.made,
        facts=numbers.facts,
        guarded=guarded,
        idle=find_idle(traced, numbers),
        sides=traced.sides,
    )
    require_lasting(trace.index, [captured], trace.weights.specs)
    return captured


def _inputs(trace: _Trace) -> Iterator[Slot]:
    """For each placeholder the argument, weight or axis."""
    traced = trace.traced
    placeholders = traced.module.graph.find_nodes(op="placeholder")
    values = _graph_inputs(traced, trace.arguments.call_with(trace.tensors))
    for node, (number, path) in zip(placeholders, trace.apart.origins, strict=True):
        value = values[number]
        if path:
            value = trace.weights.inner(value, path, traced.name_of(node))
        if not isinstance(value, torch.Tensor):
            yield Slot("size", expr=_size_of(trace, node))
        elif id(value) in trace.numbers:
            yield Slot("arg", trace.numbers[id(value)])
        else:
            _refuse_kept(trace, value, node)
            yield Slot("weight", trace.weights.slot(value, traced.name_of(node)))


def _refuse_kept(trace: _Trace, value: torch.Tensor, node: fx.Node) -> None:
    """Raise if a graph reads a tensor that the next call of the model may replace."""
    if trace.memo.holds_tensor(value):
        raise KeptTensorRead(
            f"forward reads {trace.traced.name_of(node)}, which an earlier call has made for its "
            "sizes and others make anew. Compile a model that was not called before, or have it "
            "made in every call."
        )


def _size_of(trace: _Trace, node: fx.Node) -> str:
    """The size that a placeholder is, over the names of axes."""
    tensor, dim = trace.traced.size_source(node) or (None, 0)
    if id(tensor) not in trace.numbers:
        raise CaptureError(
            f"forward computes {node.name} from Python numbers that change from call to "
            "call. Pass them as tensors, or keep them constant."
        )
    return str(trace.arguments.tensors[trace.numbers[id(tensor)]].shape[dim])


def _axis_symbols(trace: _Trace) -> dict[sympy.Symbol, sympy.Expr]:
    """Map each symbol of the graph's shapes to its size, over the symbols of axes."""
    specs, numbers = trace.arguments.tensors, trace.numbers
    symbols = {dim.name: axis_symbol(dim.name) for dim in trace.arguments.axes}
    symbols |= substitution(trace.fixed)
    return {
        symbol: size_at(size, symbols)
        for symbol, (tensor, dim) in trace.traced.symbol_sources()
        if id(tensor) in numbers
        and not isinstance(size := specs[numbers[id(tensor)]].shape[dim], int)
    }


def _describe_outputs(
    trace: _Trace, inputs: tuple[Slot, ...], symbols: Mapping[sympy.Symbol, sympy.Expr]
) -> Outputs:
    """Describe what a call returns; the graph returns the sizes in it, too."""
    graph = trace.traced.module.graph
    (output,) = graph.find_nodes(op="output")
    returned: Any = output.args[0]
    placeholders = graph.find_nodes(op="placeholder")
    viewed = viewed_inputs(placeholders, inputs, returned)
    described = describe_outputs(
        trace.index,
        trace.traced,
        [size_source(node, symbols) for node in returned],
        {**written_inputs(placeholders, inputs, returned), **viewed},
        numbers_read(returned),
        trace.arguments,
        trace.fixed,
        trace.weights,
        trace.memo,
    )
    needless = {*viewed, *described.unused}
    kept = (placeholders[0] if n in needless else node for n, node in enumerate(returned))
    output.args = ((*kept, *described.sizes),)
    drop_unused_views(graph)
    return described


def _modes(index: ModelIndex, traced: FullGraph) -> tuple[tuple[str, bool], ...]:
    """Path and mode of the modules whose `training` flag was read."""
    read = map(traced.object_named, traced.modes)
    return tuple((path, m.training) for m in read if (path := index.path_of(m)) is not None)


def _graph_inputs(
    traced: FullGraph, call: tuple[tuple[Any, ...], dict[str, Any]]
) -> tuple[Any, ...]:
    """List what the graph is called with, in the order of its placeholders."""
    received: tuple[Any, ...] = ()

    class _Received(Exception):
        pass

    def graph(*inputs: Any) -> Any:
        nonlocal received
        received = inputs
        raise _Received

    with contextlib.suppress(_Received):
        traced.replay(graph, *call)
    return received
