"""Capture a call as few graphs that serve every declared size, each cut into pieces."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from msgspec.structs import replace

from hotstart import faults
from hotstart._torch.graphs.symbols import Condition, holds_at
from hotstart._torch.structured_trace import trace_artifact
from hotstart.capture.arguments import Arguments
from hotstart.capture.captured import Captured
from hotstart.capture.described import DescribedCall, passed_objects
from hotstart.capture.keyword_order import computes, other_orders
from hotstart.capture.refusals import BranchOnContents
from hotstart.capture.trace import capture
from hotstart.capture.weight_table import WeightTable
from hotstart.errors import CaptureError, PartitionError
from hotstart.events import Clock
from hotstart.first_call.memo import NO_MEMO, Memo
from hotstart.model import ModelIndex
from hotstart.options import Options
from hotstart.partition import Piece, Plan, SplitOn, cut, make_plan
from hotstart.partition.advice import advise_leaving_out
from hotstart.partition.channels_last import with_channels_last
from hotstart.partition.cut import Run
from hotstart.partition.graph import Graph
from hotstart.partition.layouts import layouts_read, strictest
from hotstart.partition.zero_and_one import special_conditions
from hotstart.records.contract import Layout, TensorSpec
from hotstart.records.shapes import Interval, dense_strides, layout_fits
from hotstart.runtime.entry.refusal_words import dense_copy
from hotstart.specialize.limits import range_error, report_split
from hotstart.specialize.parts import Split, VariantPart
from hotstart.specialize.sides import Sides, TooManyWays, trace_ways
from hotstart.specialize.split import Declaration, Report, Splits

log = logging.getLogger("hotstart")


@dataclass(frozen=True, eq=False)
class CutGraph:
    """One graph of a call, cut into pieces.

    Attributes:
        captured: the graph.
        plan: its pieces.
        assumed: the conditions, over axis symbols, under which the graph stands for the model, and
            those of other sides do.
        layouts: how much of the layout of an argument the graph depends on, by slot.
        others: the graphs for calls that leave this one at a branch on what a tensor holds, each by
            the sides that they have taken.
    """

    captured: Captured
    plan: Plan
    assumed: tuple[Condition, ...]
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    others: Mapping[Sides, CutGraph] = field(default_factory=dict)

    @property
    def sides(self) -> Sides:
        """The sides of all branches on what tensors hold."""
        return self.captured.sides


class Assuming(Protocol):
    """A graph that stands for a model under conditions, over axis symbols."""

    @property
    def assumed(self) -> Sequence[Condition]:
        """The conditions."""
        ...


GraphT = TypeVar("GraphT", bound=Assuming)


@dataclass(frozen=True)
class TracedPart(Generic[GraphT]):
    """A part of the sizes of a call, with the graph that serves it."""

    part: VariantPart
    graph: GraphT


@dataclass(frozen=True)
class TracedCall:
    """A call that was captured and cut.

    Attributes:
        name: as it was given.
        method: what of the model is called.
        arguments: what it is called with.
        declaration: its sizes, as they were declared.
        parts: all of its sizes; parts do not overlap, but where the caller declared single sizes
            within ranges, and where calls come to them by other sides of branches.
        splits: how the parts came about.
    """

    name: str
    method: str
    arguments: Arguments
    declaration: Declaration
    parts: tuple[TracedPart[CutGraph], ...]
    splits: tuple[Split, ...] = ()

    @property
    def graphs(self) -> tuple[CutGraph, ...]:
        """The graphs, in the order they were traced."""
        return tuple(dict.fromkeys(traced.graph for traced in self.parts))

    def tensors(self) -> tuple[TensorSpec, ...]:
        """The tensor arguments, with what any graph needs of their layouts."""
        return tuple(
            replace(
                spec,
                layout=strictest([graph.layouts.get(slot, "copied") for graph in self.graphs]),
            )
            for slot, spec in enumerate(self.arguments.tensors)
        )


def trace_calls(
    index: ModelIndex,
    calls: Iterable[DescribedCall],
    weights: WeightTable,
    options: Options,
    split_on: SplitOn,
    clock: Clock,
    memo: Memo = NO_MEMO,
) -> list[TracedCall]:
    """Capture and cut the calls of a model, which keeps what is in a memo and programs do not.

    Raises:
        CaptureError: see `capture`; `RangeError` if the model decides by sizes in more ways than
            `options.splits` allows for.
        PartitionError: a graph cannot be cut as asked.
    """
    traced: list[TracedCall] = []
    for each in calls:
        arguments = each.arguments
        trace_way = partial(_trace_way, index, each, weights, options, split_on, clock, memo)
        trace = partial(_trace, trace_way, memo)
        declaration = Declaration(arguments.axes, arguments.example_sizes, options.splits)
        served, splits = trace_parts(trace, declaration)
        parts = tuple(part for each in served for part in _with_others(each))
        traced.append(
            TracedCall(each.name, each.call.method, arguments, declaration, parts, tuple(splits))
        )
        _refuse_gaps(traced[-1])
    return traced


def _trace(
    trace_way: Callable[[VariantPart, int, Sides | None], CutGraph],
    memo: Memo,
    part: VariantPart,
    number: int,
) -> CutGraph:
    """Capture and cut a graph of a call, or one for each way through it.

    Args:
        trace_way: see `_trace_way`.
        memo: what the model keeps that programs do not.
        part: gives the hints.
        number: tells the graph from others.

    Raises:
        CaptureError: see `capture`; forward has too many ways.
    """
    try:
        return trace_way(part, number, None)
    except BranchOnContents as error:
        branch = error
    refused = CaptureError(*branch.args)
    if memo is not NO_MEMO:  # what it is proven by follows one way through forward
        raise refused from branch.__cause__
    log.debug("every side of each branch is traced: %s", branch)
    try:
        graphs = trace_ways(partial(trace_way, part, number))
    except (BranchOnContents, TooManyWays):
        raise refused from branch.__cause__
    assumed = dict.fromkeys(c for graph in graphs.values() for c in graph.assumed)
    first = graphs.pop(())
    return dataclasses.replace(first, assumed=tuple(assumed), others=graphs)


def _trace_way(
    index: ModelIndex,
    call: DescribedCall,
    weights: WeightTable,
    options: Options,
    split_on: SplitOn,
    clock: Clock,
    memo: Memo,
    part: VariantPart,
    number: int,
    sides: Sides | None,
) -> CutGraph:
    """Capture and cut a graph of a call, with some sides of branches on what tensors hold."""
    name, arguments, hints = call.name, call.arguments, part.hints
    passed = passed_objects(call.call)
    again = partial(
        capture,
        index,
        call.target,
        weights=weights,
        fixed=part.fixed,
        hints=hints,
        # A block that repeats another may take another side.
        blocks_once=options.capture == "blocks_once" and sides is None,
        passed=passed,
        memo=memo,
        sides=sides,
    )
    captured = again(arguments)
    _refuse_order(captured, arguments, again)
    owner = f"{name}." if name else ""
    way = "_".join([str(number), *("yes" if side else "no" for side in sides or ())])
    prefix = owner + (f"graph_{way}." if number or sides else "")
    graph, runs = cut_graph(captured, split_on, hints, clock)
    # forward asks about the layouts of eager; the next step changes those of images.
    layouts = layouts_read(graph, arguments.tensors, arguments.axes, hints)
    if _packs_convolutions(options):
        with faults.typed(_not_cut), clock.phase("partition"):
            graph, runs = with_channels_last(graph, runs, arguments.axes, hints)
    plan = plan_of(graph, runs, prefix, clock)
    trace_artifact(f"hotstart_{owner}graph_{way}", partial(describe_plan, plan))
    declared = {dim.name: Interval(dim.min, dim.max) for dim in arguments.axes}
    special = special_conditions(plan, declared, hints)
    return CutGraph(captured, plan, (*captured.assumed, *special), layouts)


def _with_others(traced: TracedPart[CutGraph]) -> Iterator[TracedPart[CutGraph]]:
    """Yield a part, and the same sizes for each other side of branches."""
    yield traced
    for sides, graph in traced.graph.others.items():
        yield TracedPart(dataclasses.replace(traced.part, sides=sides), graph)


def trace_parts(
    trace: Callable[[VariantPart, int], GraphT],
    declaration: Declaration,
    report: Report = report_split,
) -> tuple[list[TracedPart[GraphT]], list[Split]]:
    """Trace until every declared size has a graph; one graph serves as many parts as it can.

    A graph serves the sizes of a part that meet what its trace assumed. The others wait for a graph
    that was traced before and holds for them, or for one of their own. `compile.compile_parts` has
    the same loop for units.

    Args:
        trace: makes a graph with the hints of a part; the number tells it from others.
        declaration: the sizes that are declared.
        report: tells the user of each split.

    Returns:
        The parts with their graphs, and how the parts came about.

    Raises:
        CaptureError: see `capture`.
        RangeError: a condition on sizes needs more parts than the declaration allows.
    """
    traced: list[TracedPart[GraphT]] = []
    splits = Splits(declaration, report=report)
    graphs: list[GraphT] = []
    waiting = declaration.parts()
    while waiting:
        part, *others = waiting
        graph = _serving(graphs, part)
        if graph is None:
            with _that_split(splits.origin(part), declaration):
                graph = trace(part, len(graphs))
            graphs.append(graph)
        served, *left = splits.split(part, graph.assumed).into
        traced.append(TracedPart(served, graph))
        waiting = [*left, *others]
    return traced, splits.made


@contextlib.contextmanager
def _that_split(origin: Split | None, declaration: Declaration) -> Iterator[None]:
    """Blame a trace that fails on the split that made its part: the model works for other sizes.

    Raises:
        RangeError: the trace fails, and its part comes from a split.
    """
    try:
        yield
    except CaptureError as error:
        if origin is None:
            raise
        condition, axes = origin.conditions[0], declaration.axes
        raise range_error(origin.part, condition, axes, advise=advise_leaving_out) from error


def _serving(graphs: Sequence[GraphT], part: VariantPart) -> GraphT | None:
    """A graph valid at a part's hints; preferably one valid for all of its sizes."""
    fitting = [
        graph for graph in graphs if all(holds_at(c.expr, part.hints) for c in graph.assumed)
    ]
    throughout = (g for g in fitting if all(part.fails(c.expr) is None for c in g.assumed))
    return next(throughout, next(iter(fitting), None))


def _refuse_gaps(call: TracedCall) -> None:
    """Raise if forward reads the layout of an argument whose example has another than was traced.

    Stand-ins are traced, which have no gaps.
    """
    sizes = call.arguments.example_sizes
    for spec, strides in zip(call.tensors(), call.arguments.strides, strict=True):
        shape = spec.shape_at(sizes)
        traced = dense_strides(shape, spec.dim_order)
        if not layout_fits(shape, strides, traced, spec.layout):
            raise CaptureError(
                f"{spec.path}: what forward does depends on the layout of this argument.\n"
                f"  expected: an example without gaps, of strides {traced}\n"
                f"  found:    strides {strides}\n"
                f"  do:       pass {spec.path}{dense_copy(spec.dim_order)}"
            )


def _refuse_order(
    captured: Captured, arguments: Arguments, capture_again: Callable[[Arguments], Captured]
) -> None:
    """Raise if forward depends on the order of what it takes by `**kwargs`.

    A program takes it by name, in any order.
    """
    for other in other_orders(arguments):
        if computes(capture_again(other)) != computes(captured):
            names = ", ".join(p.name for p in arguments.parameters[-arguments.unnamed :])
            raise CaptureError(
                "**kwargs: what forward does depends on the order of its arguments.\n"
                "  expected: the same for every order, as a program takes them by name\n"
                f"  found:    {names}, which compute something else in another order\n"
                "  do:       name them as parameters of forward, or pass them as one list"
            )


def _packs_convolutions(options: Options) -> bool:
    """Tell whether convolutions are compiled to run on packed weights."""
    return options.compiler == "inductor" and bool(options.pack_weights)


def cut_graph(
    captured: Captured, split_on: SplitOn, hints: Mapping[str, int], clock: Clock
) -> tuple[Graph, tuple[Run, ...]]:
    """Cut a graph, which was traced with these hints, into runs of nodes."""
    with faults.typed(_not_cut), clock.phase("partition"):
        return cut(captured, split_on, hints)


def plan_of(graph: Graph, runs: Sequence[Run], prefix: str, clock: Clock) -> Plan:
    """Digest the pieces that runs of nodes become; `prefix` starts their names."""
    with faults.typed(_not_cut), clock.phase("digest"):
        return make_plan(graph, runs, prefix)


def not_captured(reason: str) -> CaptureError:
    """The error of a capture in which torch or hotstart raises an unexpected exception."""
    return CaptureError(
        "capturing the model failed.\n"
        f"  because: {reason}\n"
        "  do:      take what raises it out of forward; if torch.compile(fullgraph=True) runs the "
        "model, please report it"
    )


def _not_cut(reason: str) -> PartitionError:
    return PartitionError(
        f"the graph cannot be cut as asked: {reason}. Try split_on=[], which leaves it whole, and "
        "please report it."
    )


def describe_plan(plan: Plan) -> str:
    """The pieces of a graph and their nodes, as text."""
    return "".join(map(describe_piece, plan.pieces))


def describe_piece(piece: Piece) -> str:
    """A piece and its nodes, as text."""
    head = f"{piece.name}: {piece.kind}, digest {piece.digest[:12]}, layers "
    lines = [head + ", ".join(piece.layers), *(f"    {n.format_node()}" for n in piece.nodes)]
    return "".join(f"{line}\n" for line in lines)
