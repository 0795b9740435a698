"""The steps of a build, in the order the stages come in, each timed."""

from __future__ import annotations

import inspect
import logging
import os
import resource
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from msgspec.structs import replace

from hotstart import _torch, fingerprint
from hotstart.capture import Arguments, Captured, WeightTable, capture
from hotstart.capture.structure import merged
from hotstart.capture.trace import hint_for
from hotstart.compilers import Bounds, Compiler, EagerCompiler, InductorCompiler, Job
from hotstart.compilers.special import require_special_sizes
from hotstart.errors import CompileError, RangeError
from hotstart.events import Clock, Event
from hotstart.generated import stitched_filename, stitched_name
from hotstart.ir import Artifact, CompiledUnit, Contract, PieceInfo, Stitched
from hotstart.options import Options
from hotstart.partition import Graph, Piece, Plan, SplitOn, cut, make_plan
from hotstart.partition.digest import hash_token
from hotstart.partition.plan import example_of
from hotstart.report import Report, UnitReport, VariantReport
from hotstart.shapes import Interval, Variant, variants
from hotstart.stitching import returned_arguments, stitch
from hotstart.tensors import Model, parameter_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def capture_all(
    model: Model, arguments: Arguments, weights: WeightTable
) -> tuple[list[Captured], dict[Variant, int]]:
    """Capture as few graphs as serve every variant: a further one only where none is proven to.

    Raises:
        CaptureError: see `capture`.
        RangeError: a variant that not even a graph of its own serves.
    """
    graphs: list[Captured] = []
    serving: dict[Variant, int] = {}
    for variant in variants(arguments.axes):
        fitting = (i for i, graph in enumerate(graphs) if graph.violation(variant) is None)
        index = next(fitting, None)
        if index is None:
            index = len(graphs)
            graphs.append(capture(model, arguments, variant, weights))
        serving[variant] = index
    return graphs, serving


def make_contract(
    model: Model, arguments: Arguments, weights: WeightTable, graphs: Sequence[Captured]
) -> Contract:
    """What a call must satisfy, from what all graphs have in common."""
    mutated: set[tuple[str, int]] = set()
    for graph in graphs:
        nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
        for node, slot in zip(nodes, graph.inputs, strict=True):
            example = example_of(node)
            if isinstance(example, torch.Tensor) and _torch.was_mutated(example):
                mutated.add((slot.kind, slot.index))
    read = merged(graph.modules for graph in graphs)
    kinds = tuple(dict.fromkeys(read.values()))
    names = {name for spec in weights.specs for name in (spec.name, *spec.ties)}
    return Contract(
        parameters=arguments.parameters,
        tensors=arguments.tensors,
        axes=arguments.axes,
        weights=tuple(
            replace(spec, mutated=("weight", slot) in mutated)
            for slot, spec in enumerate(weights.specs)
        ),
        unread=tuple(sorted(set(parameter_names(model)) - names)),
        training=model.training if isinstance(model, torch.nn.Module) else None,
        modes=tuple(sorted({mode for graph in graphs for mode in graph.modes})),
        kinds=kinds,
        modules=tuple((path, kinds.index(kind)) for path, kind in sorted(read.items())),
        autocast=_torch.autocast_state(),
        mutated_args=tuple(sorted(index for kind, index in mutated if kind == "arg")),
        given=returned_arguments([graph.outputs for graph in graphs]),
    )


def plan_all(graphs: Sequence[Captured], split_on: SplitOn, clock: Clock) -> list[Plan]:
    """Cut every graph and digest its pieces."""
    plans = []
    for index, captured in enumerate(graphs):
        with clock.phase("partition"):
            graph, runs = cut(captured, split_on)
        with clock.phase("digest"):
            plans.append(make_plan(graph, runs, f"graph_{index}." if index else ""))
        _torch.trace_artifact(f"hotstart_graph_{index}", partial(describe_plan, plans[-1]))
    return plans


def describe_plan(plan: Plan) -> str:
    """The pieces of a graph and their nodes, as text."""
    lines: list[str] = []
    for piece in plan.pieces:
        layers = ", ".join(piece.layers)
        lines.append(f"{piece.name}: {piece.kind}, digest {piece.digest[:12]}, layers {layers}")
        lines += [f"    {node.format_node()}" for node in piece.nodes]
    return "\n".join(lines) + "\n"


@dataclass
class Units:
    """The units of a build, and what the report says about them."""

    by_key: dict[str, CompiledUnit] = field(default_factory=dict)
    made_for: dict[str, str] = field(default_factory=dict)
    reports: list[UnitReport] = field(default_factory=list)
    variants: list[VariantReport] = field(default_factory=list)


def compile_all(
    plans: Sequence[Plan],
    serving: Mapping[Variant, int],
    examples: Mapping[str, int],
    compiler: Compiler,
    clock: Clock,
) -> tuple[Units, dict[Variant, dict[str, CompiledUnit]]]:
    """Compile every different piece for every variant.

    Returns:
        The units, and for each variant the unit that each compiled piece runs, by name.

    Raises:
        CompileError: a piece does not compile.
        RangeError: a compile narrowed an axis.
    """
    units = Units()
    running: dict[Variant, dict[str, CompiledUnit]] = {}
    total = sum(
        piece.kind == "compiled" for index in serving.values() for piece in plans[index].pieces
    )
    for variant, index in serving.items():
        started = clock.wall_s()
        bound = plans[index].graph.at(variant)
        running[variant] = {}
        compiled = 0
        pieces = [piece for piece in plans[index].pieces if piece.kind == "compiled"]
        for piece in pieces:
            job = make_job(bound, piece, variant, examples, compiler)
            report = _unit(job, variant, units, compiler, clock, total)
            running[variant][piece.name] = units.by_key[job.key]
            compiled += report.action == "compiled"
        seconds = clock.wall_s() - started
        reused = len(pieces) - compiled
        units.variants.append(VariantReport(variant.name, seconds, len(pieces), compiled, reused))
        log.info(
            "compiled %s in %.2f s: %d pieces, %d unique, %d reused",
            variant.name,
            seconds,
            len(pieces),
            compiled,
            reused,
        )
        clock.emit(Event("variant_finished", variant.name, seconds, len(units.reports), total))
    return units, running


def make_job(
    graph: Graph, piece: Piece, variant: Variant, examples: Mapping[str, int], compiler: Compiler
) -> Job:
    """The job of compiling a piece for a variant; no compiler is called to find its key."""
    bounds: dict[str, Bounds] = {}
    sizes: list[str] = []
    for axis in piece.axes:
        choice = variant.of(axis)
        if isinstance(choice, Interval):
            hint = hint_for(choice, examples[axis])
            bounds[axis] = Bounds(choice.lo, choice.hi, hint)
            sizes.append(f"{choice}@{hint}")
        else:
            sizes.append(str(choice))
    renamed = {_torch.axis_symbol(a): _torch.axis_symbol(f"a{i}") for i, a in enumerate(piece.axes)}
    assumed = tuple(c for c in graph.captured.guarded if c.free_symbols <= renamed.keys())
    sizes += [_torch.python_source(condition.xreplace(renamed)) for condition in assumed]
    autocast = tuple(f"{kind}:{dtype}" for kind, dtype in _torch.autocast_state())
    key = hash_token((piece.digest, tuple(sizes), compiler.token(), autocast, torch.__version__))
    return Job(key, piece, graph, bounds, assumed)


def _unit(
    job: Job, variant: Variant, units: Units, compiler: Compiler, clock: Clock, total: int
) -> UnitReport:
    started = clock.wall_s()
    name = job.piece.name
    clock.emit(Event("unit_started", name, done=len(units.reports), total=total))
    reused_from = units.made_for.get(job.key)
    if reused_from is None:
        units.by_key[job.key] = _compiled(job, variant, compiler, clock)
        units.made_for[job.key] = f"{name} ({variant.name})"
    seconds = clock.wall_s() - started
    action: Literal["compiled", "reused"] = "reused" if reused_from else "compiled"
    units.reports.append(UnitReport(name, variant.name, action, seconds, reused_from))
    clock.emit(
        Event(
            "unit_finished",
            name,
            seconds,
            len(units.reports),
            total,
            {"action": action, "variant": variant.name},
        )
    )
    return units.reports[-1]


def _compiled(job: Job, variant: Variant, compiler: Compiler, clock: Clock) -> CompiledUnit:
    _torch.trace_artifact(
        f"hotstart_compile_{job.piece.name}_{variant.name}", lambda: f"{job.key}\n{job.piece}\n"
    )
    with clock.phase("compile"):
        try:
            require_special_sizes(job)
            return compiler.compile(job)
        except RangeError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CompileError(job.piece.name, job.piece.layers, variant.name, reason) from error


def stitch_all(
    plans: Sequence[Plan],
    serving: Mapping[Variant, int],
    running: Mapping[Variant, Mapping[str, CompiledUnit]],
    contract: Contract,
    debug_dir: Path | None,
) -> tuple[Stitched, ...]:
    """Write the function of every variant."""
    made = []
    for variant, index in serving.items():
        plan = Plan(plans[index].graph.at(variant), plans[index].pieces)
        stitched = stitch(plan, contract, variant, running[variant], contract.given, "")
        made.append(replace(stitched, filename=_filename(stitched, debug_dir)))
        _torch.trace_artifact(f"hotstart_stitched_{variant.name}", partial(str, made[-1].source))
    return tuple(made)


def piece_infos(plans: Sequence[Plan]) -> tuple[PieceInfo, ...]:
    """What a user sees of the pieces of all graphs."""
    first: dict[str, str] = {}
    infos = []
    for piece in (piece for plan in plans for piece in plan.pieces):
        known = first.setdefault(piece.digest, piece.name)
        reused = known if known != piece.name and piece.kind == "compiled" else None
        infos.append(PieceInfo(piece.name, piece.digest, piece.kind, piece.layers, reused))
    return tuple(infos)


def make_fingerprint(
    model: Model,
    graphs: Sequence[Captured],
    plans: Sequence[Plan],
    units: Units,
    compiler: Compiler,
) -> dict[str, Any]:
    """The named parts that decide where the artifact fits, and what it was made of."""
    parts = fingerprint.host()
    if not any(unit.kernels for unit in units.by_key.values()):
        parts["instructions"] = []  # nothing in it is native code
    forward = model.forward if isinstance(model, torch.nn.Module) else model
    own = getattr(inspect.unwrap(forward), "__code__", None)
    files = {file for graph in graphs for file in graph.files} | {own.co_filename if own else ""}
    pieces = tuple(piece.digest for plan in plans for piece in plan.pieces)
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
    compiled = sum(report.action == "compiled" for report in units.reports)
    names = {key: made.split(" (")[0] for key, made in units.made_for.items()}
    return Report(
        wall_s=clock.wall_s(),
        phases=clock.phases(),
        pieces=len(artifact.pieces),
        unique=compiled,
        reused=len(units.reports) - compiled,
        units=tuple(units.reports),
        variants=tuple(units.variants),
        inlined=tuple(
            (names[key], unit.op_by_op) for key, unit in units.by_key.items() if unit.op_by_op
        ),
        peak_memory_bytes=_peak_memory(),
    )


def write_debug_files(folder: Path, plans: Sequence[Plan], artifact: Artifact, entry: str) -> None:
    """Write graphs, pieces and generated code as files for reading."""
    files: dict[str, str] = {"entry.py": entry}
    for index, plan in enumerate(plans):
        files[f"graph_{index}.txt"] = str(plan.graph.captured.graph)
        files[f"pieces_{index}.txt"] = describe_plan(plan)
    for stitched in artifact.stitched:
        files[Path(stitched.filename).name] = stitched.source
    for key, unit in artifact.units.items():
        files[f"unit_{key[:12]}.py"] = unit.source
    (folder / "hotstart").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "hotstart" / name).write_text(text)


def _filename(stitched: Stitched, debug_dir: Path | None) -> str:
    """What tracebacks show: a file in `debug_dir`, if there is one."""
    if debug_dir is None:
        return stitched_filename(stitched.variant, stitched.source)
    return str((debug_dir / "hotstart" / f"{stitched_name(stitched.variant)}.py").resolve())


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
