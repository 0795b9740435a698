"""What a compiler is asked for: a job for each piece of what is served, and for several at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from hotstart import _torch
from hotstart.compilers import Bounds, Compiler, Job
from hotstart.partition import Graph, Piece
from hotstart.partition.digest import hash_token
from hotstart.records.shapes import Interval
from hotstart.specialize.split import Serving

if TYPE_CHECKING:
    import sympy


def make_job(graph: Graph, piece: Piece, serving: Serving, compiler: Compiler) -> Job:
    """The job of compiling a piece for what is served; no compiler is called to find its key.

    Args:
        graph: the graph the piece is of, with the axes fixed that have one size.
        piece: the piece.
        serving: the sizes, and those to tune for.
        compiler: the compiler.
    """
    bounds = {
        axis: Bounds(choice.lo, choice.hi, serving.hints[axis])
        for axis, choice in serving.part.choices
        if axis in piece.axes and isinstance(choice, Interval)
    }
    bounds = {axis: bounds[axis] for axis in piece.axes if axis in bounds}
    conditions = (serving.part.where, *graph.captured.guarded)
    where = _torch.about(conditions, tuple(bounds), serving.part.fixed)
    return _job(graph, piece, bounds, where, compiler)


def _job(
    graph: Graph,
    piece: Piece,
    bounds: Mapping[str, Bounds],
    where: Sequence[sympy.Basic],
    compiler: Compiler,
) -> Job:
    fixed = tuple(
        "range" if axis in bounds else str(graph.fixed[_torch.axis_symbol(axis)])
        for axis in piece.axes
    )
    autocast = tuple(f"{kind}:{dtype}" for kind, dtype in _torch.autocast_state())
    kind = hash_token((piece.digest, fixed, compiler.token(), autocast, torch.__version__))
    return Job(kind, piece, graph, bounds, tuple(where))


def shared_jobs(
    parts: Iterable[tuple[Serving, Sequence[Job]]],
    assumed: Sequence[sympy.Basic],
    compiler: Compiler,
) -> dict[str, Job]:
    """For jobs that differ in sizes only, of parts of one declared range: a job for all of them.

    Those on different sides of what compiles assumed so far about their axes share nothing, nor do
    those whose operators give other shapes: some decide by size without saying so.

    Args:
        parts: what is served, and the jobs of it.
        assumed: conditions over axis symbols.
        compiler: the compiler.

    Returns:
        By the key of a job, the one in its place.
    """
    alike: dict[Hashable, list[Job]] = defaultdict(list)
    for serving, jobs in parts:
        for job in jobs:
            axes = job.piece.axes
            about = (c for c in assumed if not {*map(str, c.free_symbols)}.isdisjoint(axes))
            sides = tuple(_torch.holds_at(condition, serving.hints) for condition in about)
            alike[serving.declared, job.kind, axes, sides].append(job)
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
    """A job that serves what all of some jobs serve, and assumes no more than each of them."""
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
