"""The steps of a build, in the order the stages come in, each timed."""

from __future__ import annotations

import inspect
import logging
import os
import resource
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from msgspec.structs import replace

from hotstart import _torch, fingerprint
from hotstart._trace import TracedCall, describe_plan
from hotstart.capture.serve import Serving, hints_for, range_error, split
from hotstart.compilers import Bounds, Compiler, EagerCompiler, InductorCompiler, Job, Narrowed
from hotstart.errors import CompileError, RangeError
from hotstart.events import Clock, Event
from hotstart.generated import stitched_filename, stitched_name
from hotstart.ir import (
    Artifact,
    CompiledCall,
    CompiledUnit,
    Contract,
    PieceInfo,
    Requirements,
    Stitched,
)
from hotstart.options import Options
from hotstart.partition import Graph, Piece, Plan
from hotstart.partition.digest import hash_token
from hotstart.report import Report, UnitReport, VariantReport
from hotstart.shapes import Interval, labelled
from hotstart.stitching import stitch
from hotstart.tensors import Model, method_of

log = logging.getLogger("hotstart")


def make_compiler(options: Options, jobs: int | None) -> Compiler:
    """The compiler that options ask for."""
    if options.compiler == "eager":
        return EagerCompiler()
    return InductorCompiler(options.inductor, jobs or default_jobs())


def default_jobs() -> int:
    """How many C++ compilers run at a time: one for each core and 1 GiB this process may use."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, _, period = quota.read_text().partition(" ")
        cores = cores if limit == "max" else min(cores, -(-int(limit) // int(period)))
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, memory >> 30))


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
    """

    kept: Kept | None = None
    by_key: dict[str, CompiledUnit] = field(default_factory=dict)
    made_for: dict[str, str] = field(default_factory=dict)
    reports: list[UnitReport] = field(default_factory=list)
    variants: list[VariantReport] = field(default_factory=list)


@dataclass(frozen=True)
class CompiledServing:
    """A part of the sizes of a call, and the unit that each of its pieces runs there, by name."""

    serving: Serving
    running: Mapping[str, CompiledUnit]


def compile_call(
    call: TracedCall, units: Units, compiler: Compiler, splits: int, clock: Clock
) -> list[CompiledServing]:
    """Compile every different piece for everything that is served.

    What a compile assumes of sizes splits what is served once more: the same graph is compiled for
    either side.

    Args:
        call: what to compile.
        units: gets the units and their reports.
        compiler: the compiler.
        splits: how many further parts a part may be split into.
        clock: is told.

    Raises:
        CompileError: a piece does not compile.
        RangeError: a compile assumed more about sizes than `splits` allows for.
    """
    waiting = deque((serving, splits) for serving in call.servings)
    done: list[CompiledServing] = []
    while waiting:
        serving, left = waiting.popleft()
        try:
            running = _compile_serving(call, serving, units, compiler, clock, len(waiting))
        except _NarrowedServing as narrowed:
            parts = _split_again(call, serving, narrowed.condition, left)
            waiting.extendleft((part, left - len(parts) + 1) for part in reversed(parts))
        else:
            done.append(CompiledServing(serving, running))
    return done


class _NarrowedServing(Exception):
    def __init__(self, condition: _torch.Condition) -> None:
        self.condition = condition


def _split_again(
    call: TracedCall, serving: Serving, condition: _torch.Condition, left: int
) -> list[Serving]:
    """What is served on either side of a condition."""
    declared = {dim.name: str(dim) for dim in call.arguments.axes}
    error = range_error(serving.part, condition, declared)
    inner, rest = split(serving.part, [condition.expr], serving.hints)
    if inner is None or not rest or len(rest) > left:
        raise error
    made = [Serving(inner, serving.graph, serving.hints)]
    for part in rest:
        hints = hints_for(part, call.arguments.example_sizes, error)
        if hints is not None:
            made.append(Serving(part, serving.graph, hints))
    return made


def _compile_serving(
    call: TracedCall,
    serving: Serving,
    units: Units,
    compiler: Compiler,
    clock: Clock,
    others: int,
) -> dict[str, CompiledUnit]:
    started = clock.wall_s()
    plan = call.graphs[serving.graph].plan
    name = labelled(call.name, serving.part.variant)
    bound = plan.graph.at(serving.part.variant)
    pieces = [piece for piece in plan.pieces if piece.kind == "compiled"]
    # So many units there will be, if what is still waiting has as many pieces.
    total = len(units.reports) + len(pieces) * (1 + others)
    before = len(units.reports)
    running: dict[str, CompiledUnit] = {}
    try:
        for piece in pieces:
            job = make_job(bound, piece, serving, compiler)
            _unit(job, name, units, compiler, clock, total)
            running[piece.name] = units.by_key[job.key]
    except _NarrowedServing:
        del units.reports[before:]  # it is done again for each side
        raise
    seconds = clock.wall_s() - started
    reused = sum(report.action == "reused" for report in units.reports[before:])
    unique = len(pieces) - reused
    units.variants.append(VariantReport(name, seconds, len(pieces), unique, reused))
    log.info(
        "compiled %s in %.2f s: %d pieces, %d unique, %d reused",
        name,
        seconds,
        len(pieces),
        unique,
        reused,
    )
    clock.emit(Event("variant_finished", name, seconds, len(units.reports), total))
    return running


def make_job(graph: Graph, piece: Piece, serving: Serving, compiler: Compiler) -> Job:
    """The job of compiling a piece for what is served; no compiler is called to find its key."""
    bounds: dict[str, Bounds] = {}
    sizes: list[str] = []
    choices = dict(serving.part.choices)
    for axis in piece.axes:
        choice = choices[axis]
        if isinstance(choice, Interval):
            hint = serving.hints[axis]
            bounds[axis] = Bounds(choice.lo, choice.hi, hint)
            sizes.append(f"{choice}@{hint}")
        else:
            sizes.append(str(choice))
    conditions = (serving.part.where, *graph.captured.guarded)
    where = _torch.about(conditions, tuple(bounds), serving.part.fixed)
    renamed = {_torch.axis_symbol(a): _torch.axis_symbol(f"a{i}") for i, a in enumerate(bounds)}
    sizes += sorted(_torch.python_source(condition.xreplace(renamed)) for condition in where)
    autocast = tuple(f"{kind}:{dtype}" for kind, dtype in _torch.autocast_state())
    key = hash_token((piece.digest, tuple(sizes), compiler.token(), autocast, torch.__version__))
    return Job(key, piece, graph, bounds, where)


def _unit(
    job: Job, variant: str, units: Units, compiler: Compiler, clock: Clock, total: int
) -> None:
    started = clock.wall_s()
    name = job.piece.name
    clock.emit(Event("unit_started", name, done=len(units.reports), total=total))
    reused_from = units.made_for.get(job.key)
    action: Literal["compiled", "reused", "loaded"] = "reused"
    if reused_from is None:
        units.by_key[job.key], action = _loaded_or_compiled(job, variant, units, compiler, clock)
        units.made_for[job.key] = f"{name} ({variant})"
    seconds = clock.wall_s() - started
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


def _loaded_or_compiled(
    job: Job, variant: str, units: Units, compiler: Compiler, clock: Clock
) -> tuple[CompiledUnit, Literal["compiled", "loaded"]]:
    kept = units.kept if job.piece.portable else None
    if kept is not None and (unit := kept.get(job.key)) is not None:
        return unit, "loaded"
    unit = _compiled(job, variant, compiler, clock)
    if kept is not None:
        kept.put(unit)
    return unit, "compiled"


def _compiled(job: Job, variant: str, compiler: Compiler, clock: Clock) -> CompiledUnit:
    _torch.trace_artifact(
        f"hotstart_compile_{job.piece.name}_{variant}", lambda: f"{job.key}\n{job.piece}\n"
    )
    with clock.phase("compile"):
        try:
            return compiler.compile(job)
        except Narrowed as narrowed:
            raise _NarrowedServing(narrowed.condition) from None
        except RangeError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CompileError(job.piece.name, job.piece.layers, variant, reason) from error


def stitch_call(
    call: TracedCall,
    compiled: Sequence[CompiledServing],
    requirements: Requirements,
    contract: Contract,
    debug_dir: Path | None,
) -> CompiledCall:
    """Write the function of every variant of a call."""
    made = []
    for each in compiled:
        serving = each.serving
        variant = serving.part.variant
        cut_graph = call.graphs[serving.graph].plan
        plan = Plan(cut_graph.graph.at(variant), cut_graph.pieces)
        stitched = stitch(plan, requirements, contract, variant, each.running, "")
        made.append(replace(stitched, filename=_filename(call.name, stitched, debug_dir)))
        label = labelled(call.name, variant)
        _torch.trace_artifact(f"hotstart_stitched_{label}", partial(str, made[-1].source))
    return CompiledCall(call.name, call.method, contract, tuple(made))


def piece_infos(calls: Sequence[TracedCall]) -> tuple[PieceInfo, ...]:
    """What a user sees of the pieces of all graphs."""
    first: dict[str, str] = {}
    infos = []
    for piece in (p for call in calls for graph in call.graphs for p in graph.plan.pieces):
        known = first.setdefault(piece.digest, piece.name)
        reused = known if known != piece.name and piece.kind == "compiled" else None
        infos.append(PieceInfo(piece.name, piece.digest, piece.kind, piece.layers, reused))
    return tuple(infos)


def make_fingerprint(
    model: Model, calls: Sequence[TracedCall], units: Units, compiler: Compiler
) -> dict[str, Any]:
    """The named parts that decide where the artifact fits, and what it was made of."""
    parts = fingerprint.host()
    if not any(unit.kernels for unit in units.by_key.values()):
        parts["instructions"] = []  # nothing in it is native code
    graphs = [graph for call in calls for graph in call.graphs]
    files = {file for graph in graphs for file in graph.captured.files}
    for call in calls:
        target = method_of(model, call.method)
        forward = target.forward if isinstance(target, torch.nn.Module) else target
        own = getattr(inspect.unwrap(forward), "__code__", None)
        files.add(own.co_filename if own else "")
    pieces = tuple(piece.digest for graph in graphs for piece in graph.plan.pieces)
    return {
        **parts,
        "device": {},  # name and capability of accelerators; programs run on the CPU only so far
        "options": _as_json(compiler.token()),
        "sources": fingerprint.source_files(sorted(files)),
        "graph": hash_token(pieces),
    }


def _as_json(token: Any) -> Any:
    return [_as_json(part) for part in token] if isinstance(token, tuple) else token


def make_report(clock: Clock, artifact: Artifact, units: Units) -> Report:
    """What happened, with every second of the build accounted for."""
    reused = sum(report.action == "reused" for report in units.reports)
    names = {key: made.split(" (")[0] for key, made in units.made_for.items()}
    return Report(
        wall_s=clock.wall_s(),
        phases=clock.phases(),
        pieces=len(artifact.pieces),
        unique=len(units.reports) - reused,
        reused=reused,
        units=tuple(units.reports),
        variants=tuple(units.variants),
        inlined=tuple(
            (names[key], unit.op_by_op) for key, unit in units.by_key.items() if unit.op_by_op
        ),
        peak_memory_bytes=_peak_memory(),
    )


def write_debug_files(
    folder: Path, calls: Sequence[TracedCall], artifact: Artifact, entry: str
) -> None:
    """Write graphs, pieces and generated code as files for reading."""
    files: dict[str, str] = {"entry.py": entry}
    for call in calls:
        owner = f"{call.name}_" if call.name else ""
        for index, graph in enumerate(call.graphs):
            files[f"{owner}graph_{index}.txt"] = str(graph.captured.graph)
            files[f"{owner}pieces_{index}.txt"] = describe_plan(graph.plan)
    for stitched in (stitched for call in artifact.calls for stitched in call.stitched):
        files[Path(stitched.filename).name] = stitched.source
    for key, unit in artifact.units.items():
        files[f"unit_{key[:12]}.py"] = unit.source
    (folder / "hotstart").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "hotstart" / name).write_text(text)


def _filename(call: str, stitched: Stitched, debug_dir: Path | None) -> str:
    """What tracebacks show: a file in `debug_dir`, if there is one."""
    if debug_dir is None:
        return stitched_filename(stitched.variant, stitched.source)
    name = f"{call}_{stitched_name(stitched.variant)}" if call else stitched_name(stitched.variant)
    return str((debug_dir / "hotstart" / f"{name}.py").resolve())


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
