"""Capture a call as graphs, and cut them: the first half of a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from msgspec.structs import replace

from hotstart import _torch, faults
from hotstart.calls import Call
from hotstart.capture.arguments import Arguments, describe_arguments
from hotstart.capture.captured import Captured
from hotstart.capture.lasting import require_lasting
from hotstart.capture.trace import capture
from hotstart.capture.weights import WeightTable
from hotstart.errors import CaptureError, OptionsError, PartitionError
from hotstart.events import Clock
from hotstart.guards.collect import merged
from hotstart.guards.structure import Look
from hotstart.model import Model, ModelIndex, method_of
from hotstart.options import Options
from hotstart.partition import Plan, SplitOn, cut, make_plan
from hotstart.partition.layouts import layouts_read, strictest
from hotstart.partition.names import foreign_operators
from hotstart.partition.plan import example_of
from hotstart.partition.zero_and_one import special_conditions
from hotstart.records.artifact import Contract, Layout, Requirements, TensorSpec
from hotstart.records.guards import Seen
from hotstart.records.layout import dense_strides, layout_fits
from hotstart.records.shapes import Interval
from hotstart.runtime.tensors import dense_copy
from hotstart.specialize.split import Serving, Sizes, Split, serve
from hotstart.stitching.stitch import passed_on

_OF_THE_CALL = ("closure", "self", "target")


@dataclass(frozen=True)
class CutGraph:
    """One graph of a call, cut into pieces.

    Attributes:
        captured: the graph.
        plan: its pieces.
        assumed: the conditions under which the graph stands for the model.
        layouts: how much of the layout of an argument the graph depends on, by slot.
    """

    captured: Captured
    plan: Plan
    assumed: tuple[_torch.Condition, ...]
    layouts: Mapping[int, Layout] = field(default_factory=dict)


@dataclass(frozen=True)
class TracedCall:
    """A call that was captured and cut.

    Attributes:
        name: as it was given.
        method: what of the model is called.
        arguments: what it is called with.
        graphs: as many as it takes to serve every size.
        servings: which graph serves which sizes.
        splits: how the parts that they serve came about.
    """

    name: str
    method: str
    arguments: Arguments
    graphs: tuple[CutGraph, ...]
    servings: tuple[Serving, ...]
    splits: tuple[Split, ...] = ()


def trace_call(
    index: ModelIndex,
    name: str,
    call: Call,
    weights: WeightTable,
    options: Options,
    split_on: SplitOn,
    clock: Clock,
) -> TracedCall:
    """Capture and cut as few graphs as serve every size of a call.

    Raises:
        CaptureError: see `capture`; `RangeError` if the model decides by sizes in more ways than
            `options.splits` allows for.
        PartitionError: a graph cannot be cut as asked.
        OptionsError: the model has no such method.
    """
    try:
        target = method_of(index.model, call.method)
    except AttributeError as error:
        raise OptionsError(f"calls[{name!r}]: method {call.method!r}: {error}") from None
    arguments = describe_arguments(
        target, call.args, call.kwargs or {}, call.dynamic_shapes, torch.device(options.device)
    )
    declared = {dim.name: Interval(dim.min, dim.max) for dim in arguments.axes}
    made = 0

    def trace(fixed: Sizes, hints: Sizes) -> CutGraph:
        nonlocal made
        captured = capture(index, target, arguments, weights, fixed, hints)
        owner = f"{name}." if name else ""
        plan = make_plan_of(captured, split_on, owner + (f"graph_{made}." if made else ""), clock)
        _torch.trace_artifact(f"hotstart_{owner}graph_{made}", partial(describe_plan, plan))
        made += 1
        special = special_conditions(plan, declared, hints)
        layouts = layouts_read(plan.graph, arguments.tensors, arguments.axes, hints)
        return CutGraph(captured, plan, (*captured.assumed, *special), layouts)

    graphs, servings, splits = serve(arguments.axes, arguments.example_sizes, options.splits, trace)
    traced = TracedCall(name, call.method, arguments, tuple(graphs), tuple(servings), tuple(splits))
    _refuse_gaps(traced)
    return traced


def _refuse_gaps(call: TracedCall) -> None:
    """Raise if forward reads the layout of an argument whose example has another than was traced.

    Stand-ins are traced, which have no gaps.
    """
    sizes = call.arguments.example_sizes
    for spec, strides in zip(_tensors(call), call.arguments.strides, strict=True):
        shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
        traced = dense_strides(shape, spec.dim_order)
        if not layout_fits(shape, strides, traced, spec.layout):
            raise CaptureError(
                f"{spec.path}: what forward does depends on the layout of this argument.\n"
                f"  expected: an example without gaps, of strides {traced}\n"
                f"  found:    strides {strides}\n"
                f"  do:       pass {spec.path}{dense_copy(spec.dim_order)}"
            )


def make_plan_of(captured: Captured, split_on: SplitOn, prefix: str, clock: Clock) -> Plan:
    """Cut a graph and digest its pieces; `prefix` starts their names."""
    with faults.typed(_not_cut):
        with clock.phase("partition"):
            graph, runs = cut(captured, split_on)
        with clock.phase("digest"):
            return make_plan(graph, runs, prefix)


def not_captured(reason: str) -> CaptureError:
    """The error of a capture in which torch or hotstart raises something of their own."""
    return CaptureError(
        "the model cannot be captured as one graph.\n"
        f"  because: {reason}\n"
        "  do:      take what raises it out of forward; if torch.compile(fullgraph=True) runs the "
        "model, please report it"
    )


def _not_cut(reason: str) -> PartitionError:
    return PartitionError(
        f"the graph cannot be cut as asked: {reason}. Try split_on=[], which leaves it whole, and "
        "please report it."
    )


def make_requirements(
    index: ModelIndex, weights: WeightTable, calls: Sequence[TracedCall]
) -> Requirements:
    """What the model must bring, from what all graphs read and write.

    Raises:
        CaptureError: one graph sets on a module what another has read.
    """
    graphs = [graph.captured for call in calls for graph in call.graphs]
    require_lasting(index, graphs)
    written = {index for graph in graphs for kind, index in _written(graph) if kind == "weight"}
    read = merged(graph.modules for graph in graphs)
    # By their texts, since 1, 1.0 and True are equal and not the same.
    kinds = {repr(kind): kind for kind in read.values()}
    numbers = {text: number for number, text in enumerate(kinds)}
    look = Look()
    operators = {name for graph in graphs for name in foreign_operators(graph.module)}
    names = {name for spec in weights.specs for name in (spec.name, *spec.ties)}
    parameters = {place.name for place in index.places if place.kind == "parameter"}
    return Requirements(
        weights=tuple(
            replace(spec, mutated=slot in written) for slot, spec in enumerate(weights.specs)
        ),
        unread=tuple(sorted(parameters - names)),
        modes=tuple(sorted({mode for graph in graphs for mode in graph.modes})),
        kinds=tuple(kinds.values()),
        modules=tuple((path, numbers[repr(kind)]) for path, kind in sorted(read.items())),
        hooks=look.global_hooks(),
        operators=tuple((name, look.operator(name)) for name in sorted(operators)),
        seen=_seen(calls),
    )


def _seen(calls: Sequence[TracedCall]) -> tuple[Seen, ...]:
    """What all graphs read outside of the model's modules, by call where it is the call's own."""
    found = {
        replace(one, name=call.method) if one.start in _OF_THE_CALL else one
        for call in calls
        for graph in call.graphs
        for one in graph.captured.seen
    }
    return tuple(sorted(found, key=repr))


def make_contract(model: Model, call: TracedCall) -> Contract:
    """What a call must satisfy, from what its graphs have in common."""
    graphs = [graph.captured for graph in call.graphs]
    written = {index for graph in graphs for kind, index in _written(graph) if kind == "arg"}
    trees = [tree for graph in graphs for tree in graph.trees()]
    changed = tuple(sorted({change.number for graph in graphs for change in graph.changes}))
    return Contract(
        parameters=call.arguments.parameters,
        tensors=_tensors(call),
        axes=call.arguments.axes,
        training=model.training if isinstance(model, torch.nn.Module) else None,
        autocast=_torch.autocast_state(),
        mutated_args=tuple(sorted(written)),
        given=passed_on(trees, "arg"),
        objects=tuple(sorted({*passed_on(trees, "object"), *changed})),
        changed=changed,
    )


def _tensors(call: TracedCall) -> tuple[TensorSpec, ...]:
    """The tensor arguments, with what any graph needs of their layouts."""
    return tuple(
        replace(
            spec,
            layout=strictest([graph.layouts.get(slot, "copied") for graph in call.graphs]),
        )
        for slot, spec in enumerate(call.arguments.tensors)
    )


def _written(graph: Captured) -> set[tuple[str, int]]:
    """Kind and number of the inputs that a graph writes to."""
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    found: set[tuple[str, int]] = set()
    for node, slot in zip(nodes, graph.inputs, strict=True):
        example = example_of(node)
        if isinstance(example, torch.Tensor) and _torch.was_mutated(example):
            found.add((slot.kind, slot.index))
    return found


def describe_plan(plan: Plan) -> str:
    """The pieces of a graph and their nodes, as text."""
    lines: list[str] = []
    for piece in plan.pieces:
        layers = ", ".join(piece.layers)
        lines.append(f"{piece.name}: {piece.kind}, digest {piece.digest[:12]}, layers {layers}")
        lines += [f"    {node.format_node()}" for node in piece.nodes]
    return "\n".join(lines) + "\n"
