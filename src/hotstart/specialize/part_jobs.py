"""Define what to compile: a job for each piece of a part, or one for several parts at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotstart._torch.graphs.symbols import about, holds_at
from hotstart.compilers import Bounds, Compiler, Job, piece_kind
from hotstart.partition import Graph, Piece, Plan
from hotstart.partition.data_sizes import NumberSizes
from hotstart.records.shapes import Interval
from hotstart.specialize.parts import VariantPart
from hotstart.specialize.trace import CutGraph

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class PartJobs:
    """Jobs of a part, with the graph and the pieces they compile.

    Attributes:
        part: the sizes.
        graph: the graph that serves them.
        plan: the graph at these sizes, and its pieces.
        jobs: one for each piece that is compiled.
    """

    part: VariantPart
    graph: CutGraph
    plan: Plan
    jobs: tuple[Job, ...]


def jobs_of(part: VariantPart, graph: CutGraph, compiler: Compiler) -> PartJobs:
    """The jobs of a part; no compiler is called to find their keys."""
    plan = Plan(graph.plan.graph.at(part.variant), graph.plan.pieces)
    pieces = [piece for piece in plan.pieces if piece.kind == "compiled"]
    jobs = tuple(make_job(plan.graph, piece, part, compiler) for piece in pieces)
    return PartJobs(part, graph, plan, jobs)


def make_job(graph: Graph, piece: Piece, part: VariantPart, compiler: Compiler) -> Job:
    """The job of compiling a piece for a part; no compiler is called to find its key.

    Args:
        graph: the graph the piece is of, with the axes fixed that have one size.
        piece: the piece.
        part: the sizes, and those to tune for.
        compiler: the compiler.
    """
    bounds = {
        axis: Bounds(choice.lo, choice.hi, part.hints[axis])
        for axis, choice in part.choices
        if axis in piece.axes and isinstance(choice, Interval)
    }
    bounds |= _bounds_of_numbers(graph, part, piece.axes)
    bounds = {axis: bounds[axis] for axis in piece.axes if axis in bounds}
    conditions = (part.where, *graph.captured.guarded)
    where = about(conditions, tuple(bounds), part.fixed)
    if graph.captured.numbers:
        hints = {axis: bound.hint for axis, bound in bounds.items()}
        where = tuple(condition for condition in where if holds_at(condition, hints))
    return _job(graph, piece, bounds, where, compiler)


def _bounds_of_numbers(graph: Graph, part: VariantPart, axes: Collection[str]) -> dict[str, Bounds]:
    """The ranges of the data-dependent numbers that a piece uses."""
    numbers = [number for number in graph.captured.numbers if number.name in axes]
    if not numbers:
        return {}
    hints = NumberSizes(graph.captured).at(part.hints) or {}
    return {
        n.name: Bounds(n.low or 0, n.high, hints.get(n.name, min(max(n.low or 0, 2), n.high)), True)
        for n in numbers
    }


def _job(
    graph: Graph,
    piece: Piece,
    bounds: Mapping[str, Bounds],
    where: Sequence[sympy.Basic],
    compiler: Compiler,
) -> Job:
    kind = piece_kind(graph, piece, bounds, compiler.token())
    return Job(kind, piece, graph, bounds, tuple(where))


def shared_jobs(
    parts: Iterable[PartJobs], assumed: Sequence[sympy.Basic], compiler: Compiler
) -> dict[str, Job]:
    """Make shared jobs: one for all jobs of a declared variant that differ in sizes only.

    Two jobs share nothing if a condition that a compile assumed holds for one and fails for the
    other, or if their operators give different shapes: some depend on a size without a guard.

    Args:
        parts: the parts with their jobs.
        assumed: conditions over axis symbols.
        compiler: the compiler.

    Returns:
        By the key of a job, the one to try first.
    """
    alike: dict[Hashable, list[Job]] = defaultdict(list)
    for each in parts:
        for job in each.jobs:
            axes = job.piece.axes
            mentioning = (c for c in assumed if not {*map(str, c.free_symbols)}.isdisjoint(axes))
            sides = tuple(holds_at(condition, each.part.hints) for condition in mentioning)
            alike[each.part.declared, job.kind, axes, sides].append(job)
    shared: dict[str, Job] = {}
    for similar in alike.values():
        if len({job.key for job in similar}) > 1:
            by_shapes: dict[Hashable, list[Job]] = defaultdict(list)
            for job in similar:
                by_shapes[job.shapes].append(job)
            for same in by_shapes.values():
                shared |= dict.fromkeys((job.key for job in same), _together(same, compiler))
    return shared


def _together(jobs: Sequence[Job], compiler: Compiler) -> Job:
    """Make a job for the sizes of several jobs, which assumes no more than each of them."""
    first = jobs[0]
    bounds = {
        axis: Bounds(
            min(job.bounds[axis].low for job in jobs),
            max(job.bounds[axis].high for job in jobs),
            bound.hint,
        )
        for axis, bound in first.bounds.items()
    }
    where = [condition for condition in first.where if all(condition in j.where for j in jobs)]
    return _job(first.graph, first.piece, bounds, where, compiler)
