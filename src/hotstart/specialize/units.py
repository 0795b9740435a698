"""Compile every different piece of a call, for all the sizes that it serves."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from hotstart import _torch
from hotstart.compilers import Compiler, Job, Narrowed
from hotstart.errors import CompileError, RangeError, StoreError
from hotstart.events import Clock, Event
from hotstart.partition import Graph
from hotstart.records.artifact import CompiledUnit
from hotstart.records.report import Action, UnitReport, VariantReport
from hotstart.records.shapes import labelled
from hotstart.specialize.call import TracedCall
from hotstart.specialize.jobs import make_job, shared_jobs
from hotstart.specialize.split import (
    Serving,
    Split,
    hints_for,
    range_error,
    refuse_endless,
    split,
    tell,
)

if TYPE_CHECKING:
    import sympy

log = logging.getLogger("hotstart")


class Kept(Protocol):
    """Units of earlier builds."""

    def get(self, key: str) -> CompiledUnit | None:
        """The unit of a job; None if there is none that fits."""

    def put(self, unit: CompiledUnit) -> None:
        """Keep the unit of a job."""


@dataclass
class Units:
    """The units of a build, and what the report says about them.

    Attributes:
        kept: units of earlier builds, where there are any.
        made: the units with the jobs they were made for, by kind.
        made_for: the piece and variant that each was made for.
        reports: what was done for each piece of each variant.
        variants: each variant as a whole.
        failed: the keys of jobs that a compiler did not do for all that they were to serve.
        unreported: what was done for units, by key, where the part they were for was split then.
        splits: how parts of what was declared came about, by the name of their call.
    """

    kept: Kept | None = None
    made: defaultdict[str, list[tuple[Job, CompiledUnit]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    made_for: dict[str, str] = field(default_factory=dict)
    reports: list[UnitReport] = field(default_factory=list)
    variants: list[VariantReport] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    unreported: dict[str, UnitReport] = field(default_factory=dict)
    splits: list[tuple[str, Split]] = field(default_factory=list)

    def serving(self, job: Job) -> CompiledUnit | None:
        """The unit that serves a job: the one that was made for it, else one that includes it."""
        made = self.made[job.kind]
        own = (unit for other, unit in made if other.key == job.key)
        return next(own, next((unit for other, unit in made if other.includes(job)), None))


@dataclass(frozen=True)
class CompiledServing:
    """A part of the sizes of a call, compiled.

    Attributes:
        serving: the sizes, and which graph serves them.
        graph: that graph at these sizes.
        running: the unit that each of its pieces runs, by name.
    """

    serving: Serving
    graph: Graph
    running: Mapping[str, CompiledUnit]


@dataclass(frozen=True)
class _Waiting:
    """A part of the sizes of a call, and the jobs it needs."""

    serving: Serving
    graph: Graph
    jobs: Sequence[Job]


def compile_call(
    call: TracedCall, units: Units, compiler: Compiler, splits: int, clock: Clock
) -> list[CompiledServing]:
    """Compile every different piece for everything that is served.

    What a compile assumes of sizes splits what is served once more: the same graph is compiled for
    either side. Units that assume nothing serve all parts of a range.

    Args:
        call: what to compile.
        units: gets the units and their reports.
        compiler: the compiler.
        splits: how many further parts what was declared together may be split into, all told.
        clock: is told.

    Raises:
        CompileError: a piece does not compile.
        RangeError: a compile assumed more about sizes than `splits` allows for.
    """
    units.splits += [(call.name, made) for made in call.splits]
    waiting = [_waiting(call, serving, compiler) for serving in call.servings]
    assumed: list[sympy.Basic] = []
    shared = _shared(waiting, assumed, compiler)
    done: list[CompiledServing] = []
    while waiting:
        part = waiting[0]
        running = _compile_part(call, part, shared, units, compiler, clock, len(waiting) - 1)
        if not isinstance(running, Narrowed):
            done.append(CompiledServing(part.serving, part.graph, running))
            del waiting[0]
            continue
        declared = part.serving.declared
        room = splits + 1 - _parts(declared, (*done, *waiting))
        waiting = _split_again(call, waiting, running.condition, units, compiler, room)
        made = [s for name, s in units.splits if (name, s.declared) == (call.name, declared)]
        refuse_endless(call.arguments.axes, made, splits)
        tell(made[-1], _parts(declared, (*done, *waiting)))
        assumed.append(running.condition.expr)
        shared |= _shared(waiting, assumed, compiler)
    return done


def _parts(declared: object, served: Iterable[CompiledServing | _Waiting]) -> int:
    """How many parts of one declared variant there are."""
    return sum(each.serving.declared == declared for each in served)


def _waiting(call: TracedCall, serving: Serving, compiler: Compiler) -> _Waiting:
    plan = call.graphs[serving.graph].plan
    graph = plan.graph.at(serving.part.variant)
    pieces = (piece for piece in plan.pieces if piece.kind == "compiled")
    return _Waiting(serving, graph, [make_job(graph, p, serving, compiler) for p in pieces])


def _shared(
    waiting: Iterable[_Waiting], assumed: Sequence[sympy.Basic], compiler: Compiler
) -> dict[str, Job]:
    """By key of a job, one to try first: it serves several parts."""
    return shared_jobs(((part.serving, part.jobs) for part in waiting), assumed, compiler)


def _split_again(
    call: TracedCall,
    waiting: Sequence[_Waiting],
    condition: _torch.Condition,
    units: Units,
    compiler: Compiler,
    room: int,
) -> list[_Waiting]:
    """Split the first part at a condition, and others of its range where that leaves boxes.

    What the first one's compile assumed, theirs would assume too; and parts of the same sizes can
    share a unit. All together make at most `room` further parts.

    Raises:
        RangeError: the first part would be split into too many.
    """
    first = waiting[0]
    made: list[_Waiting] = []
    for part in waiting:
        if part is first:
            sides = _sides(call, part, condition, room)
        elif part.serving.declared == first.serving.declared:
            sides = _boxes(call, part, condition, room)
        else:
            sides = [part.serving]
        room -= len(sides) - 1
        if len(sides) > 1:
            into = tuple(side.part for side in sides)
            declared = part.serving.declared
            made_of = Split(declared, part.serving.part, (condition,), into)
            units.splits.append((call.name, made_of))
        made += [_waiting(call, side, compiler) for side in sides]
    return made


def _sides(
    call: TracedCall, part: _Waiting, condition: _torch.Condition, room: int
) -> list[Serving]:
    """What is served on either side of a condition.

    Raises:
        RangeError: that is too many parts, or the condition does not split it.
    """
    serving = part.serving
    error = range_error(call.arguments.axes, serving.part, condition)
    inner, rest = split(serving.part, [condition.expr], serving.hints)
    if inner is None or not rest or len(rest) > room:
        raise error
    made = [replace(serving, part=inner)]
    for other in rest:
        hints = hints_for(other, call.arguments.example_sizes, error)
        if hints is not None:
            made.append(replace(serving, part=other, hints=hints))
    return made


def _boxes(
    call: TracedCall, part: _Waiting, condition: _torch.Condition, room: int
) -> list[Serving]:
    """The same of another part where either side is a box; else that part as it is."""
    import sympy

    if not _torch.holds_at(condition.expr, part.serving.hints):
        condition = replace(condition, expr=sympy.Not(condition.expr))
    try:
        sides = _sides(call, part, condition, room)
    except RangeError:
        return [part.serving]
    same = all(side.part.where == part.serving.part.where for side in sides)
    return sides if same else [part.serving]


def _compile_part(
    call: TracedCall,
    part: _Waiting,
    shared: Mapping[str, Job],
    units: Units,
    compiler: Compiler,
    clock: Clock,
    others: int,
) -> dict[str, CompiledUnit] | Narrowed:
    """The unit of each piece of a part, or what a compile assumed of its sizes."""
    started = clock.wall_s()
    name = labelled(call.name, part.serving.part.variant)
    # So many units there will be, if what is still waiting has as many pieces.
    total = len(units.reports) + len(part.jobs) * (1 + others)
    before = len(units.reports)
    running: dict[str, CompiledUnit] = {}
    for job in part.jobs:
        wide = shared.get(job.key, job)
        unit = _unit(job, wide, name, units, compiler, clock, total)
        if isinstance(unit, Narrowed):
            # It is done again for each side, where what was made is found.
            for report in units.reports[before:]:
                if report.reused_from is None:
                    units.unreported[running[report.piece].key] = report
            del units.reports[before:]
            return unit
        running[job.piece.name] = unit
    seconds = clock.wall_s() - started
    reused = sum(report.action == "reused" for report in units.reports[before:])
    unique = len(part.jobs) - reused
    units.variants.append(VariantReport(name, seconds, len(part.jobs), unique, reused))
    log.info(
        "compiled %s in %.2f s: %d pieces, %d unique, %d reused",
        name,
        seconds,
        len(part.jobs),
        unique,
        reused,
    )
    clock.emit(Event("variant_finished", name, seconds, len(units.reports), total))
    return running


def units_of(parts: Iterable[CompiledServing]) -> dict[str, CompiledUnit]:
    """The units that run, by key; others were made for parts that were split after all."""
    return {unit.key: unit for part in parts for unit in part.running.values()}


def _unit(
    job: Job, wide: Job, variant: str, units: Units, compiler: Compiler, clock: Clock, total: int
) -> CompiledUnit | Narrowed:
    started = clock.wall_s()
    name = job.piece.name
    clock.emit(Event("unit_started", name, done=len(units.reports), total=total))
    unit, action = _made(job, wide, variant, units, compiler, clock)
    if isinstance(unit, Narrowed):
        return unit
    seconds = clock.wall_s() - started
    told = units.unreported.pop(unit.key, None)
    if told is not None:
        action, seconds = told.action, told.seconds + seconds
    reused_from = units.made_for[unit.key] if action == "reused" else None
    if reused_from is None:
        units.made_for[unit.key] = f"{name} ({variant})"
    units.reports.append(UnitReport(name, variant, action, seconds, reused_from))
    clock.emit(
        Event(
            "unit_finished",
            name,
            seconds,
            len(units.reports),
            total,
            {"action": action, "variant": variant},
        )
    )
    return unit


def _made(
    job: Job, wide: Job, variant: str, units: Units, compiler: Compiler, clock: Clock
) -> tuple[CompiledUnit | Narrowed, Action]:
    """A unit that serves a job, or what a compile assumed, and what was done for it.

    Where another job serves several parts, it is tried first.
    """
    unit = units.serving(job)
    if unit is not None:
        return unit, "reused"
    tried = [job] if wide.key == job.key or wide.key in units.failed else [wide, job]
    for each in tried:
        if (unit := _kept(each, units)) is not None:
            return unit, "loaded"
    if len(tried) > 1:
        try:
            found = _compiled(wide, variant, units, compiler, clock)
        except CompileError as error:
            log.debug("%s is compiled for each part of a range: %r", job.piece.name, error)
        else:
            if isinstance(found, CompiledUnit):
                return found, "compiled"
            log.debug("%s is compiled for each part of a range: %s", job.piece.name, found)
    return _compiled(job, variant, units, compiler, clock), "compiled"


def _kept(job: Job, units: Units) -> CompiledUnit | None:
    unit = units.kept.get(job.key) if units.kept is not None and job.piece.portable else None
    if unit is not None:
        units.made[job.kind].append((job, unit))
    return unit


def _compiled(
    job: Job, variant: str, units: Units, compiler: Compiler, clock: Clock
) -> CompiledUnit | Narrowed:
    _torch.trace_artifact(
        f"hotstart_compile_{job.piece.name}_{variant}", lambda: f"{job.key}\n{job.piece}\n"
    )
    with clock.phase("compile"):
        try:
            unit = compiler.compile(job)
        except (RangeError, StoreError):
            raise
        except Exception as error:
            units.failed.add(job.key)
            reason = f"{type(error).__name__}: {error}"
            raise CompileError(job.piece.name, job.piece.layers, variant, reason) from error
    if isinstance(unit, Narrowed):
        units.failed.add(job.key)
        return unit
    if units.kept is not None and job.piece.portable:
        units.kept.put(unit)
    units.made[job.kind].append((job, unit))
    return unit
