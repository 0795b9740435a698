"""Compile every different piece of a call, for all the sizes that it serves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotstart.compilers import Job, Narrowed
from hotstart.events import Event
from hotstart.partition import Plan
from hotstart.records.artifact import CompiledUnit
from hotstart.records.shapes import Variant, labelled
from hotstart.specialize.part_jobs import PartJobs, jobs_of, shared_jobs
from hotstart.specialize.parts import Split
from hotstart.specialize.split import Splits
from hotstart.specialize.trace import TracedCall
from hotstart.specialize.unit_table import MadeUnit, Units

if TYPE_CHECKING:
    import sympy

log = logging.getLogger("hotstart")


@dataclass(frozen=True)
class CompiledPart:
    """A part of the sizes of a call, compiled: a variant of the program.

    Attributes:
        name: the variant's, with that of the call.
        variant: the sizes.
        plan: the graph that serves them, at these sizes, and its pieces.
        units: the unit that each compiled piece runs, by name.
        seconds: how long it took.
    """

    name: str
    variant: Variant
    plan: Plan
    units: Mapping[str, MadeUnit]
    seconds: float


@dataclass(frozen=True)
class CompiledCall:
    """A call with units for all of its sizes.

    Attributes:
        traced: the call.
        parts: the parts; together they serve all sizes, and do not overlap.
        splits: how the parts came about, while tracing and while compiling.
    """

    traced: TracedCall
    parts: tuple[CompiledPart, ...]
    splits: tuple[Split, ...]


@dataclass(frozen=True)
class CallJobs:
    """The jobs of a call.

    Attributes:
        traced: the call.
        parts: its parts with a job for each piece.
        shared: by the key of a job, the one to try first, which serves several parts.
    """

    traced: TracedCall
    parts: Sequence[PartJobs]
    shared: Mapping[str, Job]


def begin_calls(calls: Sequence[TracedCall], units: Units) -> list[CallJobs]:
    """Make the jobs of some calls, and let workers begin with those that are needed first.

    Args:
        calls: what to compile.
        units: will make the units.
    """
    jobs: list[CallJobs] = []
    for call in calls:
        parts = [jobs_of(each.part, each.graph, units.compiler) for each in call.parts]
        shared = shared_jobs(parts, (), units.compiler)
        units.expect(call.name, _first_tried(parts, shared))
        jobs.append(CallJobs(call, parts, shared))
    return jobs


def compile_calls(calls: Sequence[CallJobs], units: Units) -> list[CompiledCall]:
    """Compile every different piece of some calls, for everything that is served.

    Args:
        calls: what to compile, as `begin_calls` made it for these units.
        units: makes the units, and has them.

    Raises:
        CompileError: a piece does not compile.
        RangeError: a compile assumed more about sizes than the limit of splits allows for.
    """
    made: list[CompiledCall] = []
    unmade = {first.key for call in calls for _, first in _first_tried(call.parts, call.shared)}
    for number, jobs in enumerate(calls, 1):
        served = sum(len(part.units) for other in made for part in other.parts)
        later = sum(len(part.jobs) for other in calls[number:] for part in other.parts)
        compiled, splits = compile_parts(jobs, units, unmade, served, later)
        units.expect(jobs.traced.name, ())  # what was expected and is not needed is not compiled
        made.append(CompiledCall(jobs.traced, tuple(compiled), tuple(splits)))
    return made


def compile_parts(
    jobs: CallJobs, units: Units, unmade: set[str], served: int, later: int
) -> tuple[list[CompiledPart], list[Split]]:
    """Compile part by part, for units that assume nothing of the sizes that they serve.

    A condition that a compile assumes splits all parts that wait; the same graph is compiled for
    either side. Units that assume nothing serve all parts of a declared variant.
    `trace.trace_parts` has the same loop for graphs.

    Args:
        jobs: what to compile.
        units: makes the units, and has them.
        unmade: keys of jobs that wait for a unit, of later calls, too; those that get one leave.
        served: how many pieces of earlier calls have units.
        later: how many pieces of later calls need them.

    Returns:
        The parts with their units, and how the parts came about.
    """
    compiled: list[CompiledPart] = []
    call = jobs.traced
    splits = Splits(call.declaration, call.splits)
    assumed: list[sympy.Basic] = []
    waiting, shared = list(jobs.parts), dict(jobs.shared)
    while waiting:
        part, *others = waiting
        total = served + sum(len(each.jobs) for each in waiting) + later  # if none is split
        made = _compile_part(call.name, part, shared, units, unmade, served, total)
        if isinstance(made, CompiledPart):
            compiled.append(made)
            served += len(made.units)
            waiting = others
            continue
        assumed.append(made.condition.expr)
        found = splits.split_alike([each.part for each in waiting], made.condition)
        waiting = [
            jobs_of(left, each.graph, units.compiler)
            for each, split in zip(waiting, found, strict=True)
            for left in split.into
        ]
        shared |= shared_jobs(waiting, assumed, units.compiler)
        unmade |= {first.key for _, first in _first_tried(waiting, shared)}
        units.expect(call.name, _first_tried(waiting, shared))
    return compiled, splits.made


def _first_tried(parts: Iterable[PartJobs], shared: Mapping[str, Job]) -> Iterator[tuple[Job, Job]]:
    """Pair each job of some parts with the one that is tried first."""
    for part in parts:
        for job in part.jobs:
            yield job, shared.get(job.key, job)


def _compile_part(
    call: str,
    part: PartJobs,
    shared: Mapping[str, Job],
    units: Units,
    unmade: set[str],
    served: int,
    total: int,
) -> CompiledPart | Narrowed:
    """Compile each piece of a part; return the units, or the condition that a compile assumed."""
    clock = units.clock
    started = clock.wall_s()
    variant = part.part.variant
    name = labelled(call, variant)
    running: dict[str, MadeUnit] = {}
    reused = 0
    for done, job in enumerate(part.jobs, served):
        piece = job.piece.name
        about = {"layers": ", ".join(job.piece.layers), "variant": name}
        clock.emit(Event("unit_started", piece, done=done, total=total, detail=about))
        began = clock.wall_s()
        known = units.serving(job)
        wide = shared.get(job.key, job)
        made = units.make(job, wide, name) if known is None else known
        unmade -= {job.key, wide.key}
        if isinstance(made, Narrowed):
            return made
        running[piece] = made
        reused += known is not None
        action = made.action if known is None else "reused"
        detail = {"action": action, "unmade": str(len(unmade)), **about}
        seconds = made.seconds if known is None else clock.wall_s() - began
        clock.emit(Event("unit_finished", piece, seconds, done + 1, total, detail))
    seconds = clock.wall_s() - started
    log.info(
        "compiled %s in %.2f s: %d pieces, %d units made, %d reused",
        name,
        seconds,
        len(running),
        len(running) - reused,
        reused,
    )
    clock.emit(Event("variant_finished", name, seconds, served + len(running), total))
    return CompiledPart(name, variant, part.plan, running, seconds)


def units_of(calls: Iterable[CompiledCall]) -> tuple[CompiledUnit, ...]:
    """The units that run; others were made for parts that were split after all."""
    parts = (part for call in calls for part in call.parts)
    by_key = {made.unit.key: made.unit for part in parts for made in part.units.values()}
    return tuple(by_key.values())
