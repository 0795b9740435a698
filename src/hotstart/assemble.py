"""What a build does around its units: a compiler before; code, fingerprint and report after."""

from __future__ import annotations

import logging
import os
import platform
import resource
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from hotstart import _torch
from hotstart.artifact import fingerprint
from hotstart.compilers import Compiler, InductorCompiler, OpByOpCompiler, ProvenCompiler
from hotstart.compilers.tuning import measured
from hotstart.errors import OptionsError
from hotstart.events import Clock
from hotstart.guards.sources import sources
from hotstart.native.build import Reasons, build_native
from hotstart.native.wiring import make_wiring
from hotstart.options import Options
from hotstart.partition.digest import hash_token
from hotstart.records.artifact import (
    Artifact,
    Blob,
    CompiledCall,
    CompiledUnit,
    NativeProgram,
    Requirements,
)
from hotstart.records.contract import Contract
from hotstart.records.report import PieceInfo, SplitReport, Summary, UnitReport, VariantReport
from hotstart.records.shapes import labelled
from hotstart.runtime.generated import stitched_name
from hotstart.specialize.compile import SpecializedCall, units_of
from hotstart.specialize.kept import Kept
from hotstart.specialize.parts import Split
from hotstart.specialize.trace import TracedCall, describe_plan
from hotstart.stitching.stitch import stitch
from hotstart.targets import TargetName, missing_instructions

log = logging.getLogger("hotstart")


def make_compiler(options: Options, clock: Clock) -> Compiler:
    """The compiler that options ask for; `clock` is told of the time that proofs take.

    Raises:
        OptionsError: this machine cannot run what is built for the target, or a setting of
            Inductor contradicts it.
    """
    require_target(options.target)
    if options.compiler == "op_by_op":
        return OpByOpCompiler()
    jobs = options.jobs or default_jobs()
    inductor = InductorCompiler(
        options.inductor,
        jobs,
        options.pack_weights,
        tune=measured if options.tune else None,
        target=options.target,
    )
    if options.prove == "off":
        return inductor
    return ProvenCompiler(inductor, options.prove, clock)


def require_target(target: TargetName) -> None:
    """Check that this machine runs what is built for a target, which proofs and the check do.

    Raises:
        OptionsError: it does not.
    """
    machine = platform.machine()
    if target == "native":
        return
    missing = missing_instructions(target, fingerprint.host()["instructions"])
    if machine != "x86_64" or missing:
        found = f"one without {', '.join(missing)}" if machine == "x86_64" else machine
        raise OptionsError(
            f"target: expected a machine that runs programs for {target}, found {found}\n"
            "do: take a lower target, or build on a machine of that level: units are run and "
            "compared while they are built"
        )


def debug_folder(options: Options) -> Path | None:
    """The folder for debug files, made if it is not there; None if there is to be none.

    Raises:
        OptionsError: it cannot be made.
    """
    if options.debug_dir is None:
        return None
    folder = Path(options.debug_dir)
    try:
        (folder / "hotstart").mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OptionsError(f"debug_dir: got {folder}, which cannot be made: {error}") from None
    return folder


def default_jobs() -> int:
    """Choose how many C++ compilers run at a time: one for each core and 1 GiB to be used."""
    cores = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, _, period = quota.read_text().partition(" ")
        cores = cores if limit == "max" else min(cores, -(-int(limit) // int(period)))
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, memory >> 30))


def stitch_call(
    call: SpecializedCall, requirements: Requirements, contract: Contract
) -> CompiledCall:
    """Write the function of every variant of a call."""
    made = []
    for part in call.parts:
        units = {piece: each.unit for piece, each in part.units.items()}
        made.append(stitch(part.plan, requirements, contract, part.variant, units))
        _torch.trace_artifact(f"hotstart_stitched_{part.name}", partial(str, made[-1].source))
    return CompiledCall(call.traced.name, call.traced.method, contract, tuple(made))


def make_native(
    requirements: Requirements,
    calls: Sequence[CompiledCall],
    units: Sequence[CompiledUnit],
    options: Options,
    kept: Kept | None,
) -> tuple[NativeProgram | None, Reasons]:
    """The variants as native code, if that is asked for and there are kernels to call.

    Raises:
        OptionsError: it is asked for, and a variant has no native form.
    """
    if options.form == "python" or (options.form == "auto" and not any(u.kernels for u in units)):
        return None, ()
    devices = {spec.device for spec in requirements.weights}
    devices |= {spec.device for call in calls for spec in call.contract.tensors}
    elsewhere = sorted(devices - {"cpu"})
    native, reasons = build_native(calls, {u.key: u for u in units}, elsewhere, kept)
    if reasons and options.form == "native":
        listed = "".join(f"\n  {variant}: {reason}" for variant, reason in reasons)
        raise OptionsError(
            f"form: got 'native', and variants have steps without a native form:{listed}\n"
            "do: take 'auto', which runs them as Python"
        )
    if native is not None:
        native = replace(native, wiring=make_wiring(native, requirements, calls, units))
    return native, reasons


def piece_infos(calls: Sequence[TracedCall]) -> tuple[PieceInfo, ...]:
    """Describe the pieces of all graphs as users see them."""
    first: dict[str, str] = {}
    infos = []
    for piece in (p for call in calls for graph in call.graphs for p in graph.plan.pieces):
        known = first.setdefault(piece.digest, piece.name)
        reused = known if known != piece.name and piece.kind == "compiled" else None
        infos.append(PieceInfo(piece.name, piece.digest, piece.kind, piece.layers, reused))
    return tuple(infos)


def make_fingerprint(
    calls: Sequence[TracedCall],
    units: Sequence[CompiledUnit],
    compiler: Compiler,
    target: TargetName,
) -> dict[str, Any]:
    """The named parts that decide where the artifact fits, and what it was made of."""
    parts = fingerprint.allowed(target)
    if not any(unit.kernels for unit in units):
        parts["instructions"] = []  # nothing in it is native code
    graphs = [graph for call in calls for graph in call.graphs]
    codes = {code for graph in graphs for code in graph.captured.read.codes}
    loose = {code for graph in graphs for code in graph.captured.read.loose}
    pieces = tuple(piece.digest for graph in graphs for piece in graph.plan.pieces)
    return {
        **parts,
        "target": target,
        "options": _as_json(compiler.token()),
        "sources": msgspec.to_builtins(sources(codes, loose)),
        "graph": hash_token(pieces),
    }


def _as_json(token: Any) -> Any:
    return [_as_json(part) for part in token] if isinstance(token, tuple) else token


def list_made(
    pieces: Sequence[PieceInfo],
    calls: Sequence[SpecializedCall],
    not_native: Sequence[tuple[str, str]] = (),
) -> Summary:
    """List what a build made."""
    units, variants = _of_variants(calls)
    made = [report.piece for report in units if report.action != "reused"]
    named = list(zip(made, units_of(calls), strict=True))
    return Summary(
        pieces=len(pieces),
        unique=len(made),
        reused=len(units) - len(made),
        units=tuple(units),
        variants=tuple(variants),
        splits=tuple(
            _split_report(call.traced.name, split) for call in calls for split in call.splits
        ),
        op_by_op=tuple((name, unit.op_by_op) for name, unit in named if unit.op_by_op),
        proven=sum(bool(unit.proof.sizes) for _, unit in named),
        without=tuple(
            (name, unit.proof.without, unit.proof.why) for name, unit in named if unit.proof.without
        ),
        unproven=tuple((name, why) for name, unit in named for why in unit.proof.skipped),
        not_packed=tuple((name, unit.not_packed) for name, unit in named if unit.not_packed),
        linears=tuple((name, unit.linears) for name, unit in named if unit.linears),
        not_native=tuple(not_native),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _of_variants(calls: Sequence[SpecializedCall]) -> tuple[list[UnitReport], list[VariantReport]]:
    """Report each compiled piece of each variant, and each variant."""
    first: dict[str, str] = {}
    units: list[UnitReport] = []
    variants: list[VariantReport] = []
    for part in (part for call in calls for part in call.parts):
        made = 0
        for piece, each in part.units.items():
            here = f"{piece} ({part.name})"
            origin = first.setdefault(each.unit.key, here)
            if origin == here:
                made += 1
                units.append(UnitReport(piece, part.name, each.action, each.seconds))
            else:
                units.append(UnitReport(piece, part.name, "reused", 0.0, origin))
        pieces = len(part.units)
        variants.append(VariantReport(part.name, part.seconds, pieces, made, pieces - made))
    return units, variants


def _split_report(call: str, split: Split) -> SplitReport:
    return SplitReport(
        variant=labelled(call, split.part.variant),
        conditions=tuple((_torch.python_source(c.expr), c.source) for c in split.conditions),
        into=tuple(labelled(call, part.variant) for part in split.into),
    )


def in_debug_files(artifact: Artifact, folder: Path | None) -> Artifact:
    """An artifact whose variants show in tracebacks as files in `folder`, if there is one."""
    if folder is None:
        return artifact
    calls = []
    for call in artifact.calls:
        owner = f"{call.name}_" if call.name else ""
        stitched = []
        for one in call.stitched:
            path = folder / "hotstart" / f"{owner}{stitched_name(one.variant)}.py"
            code = replace(one.code, filename=str(path.resolve()), bytecode=Blob(""))
            stitched.append(replace(one, code=code))
        calls.append(replace(call, stitched=tuple(stitched)))
    return replace(artifact, calls=tuple(calls))


def write_debug_files(
    folder: Path, calls: Sequence[TracedCall], artifact: Artifact, entry: str
) -> None:
    """Write graphs, pieces and generated code, as `in_debug_files` names it, for reading."""
    files: dict[str, str] = {"entry.py": entry}
    for call in calls:
        owner = f"{call.name}_" if call.name else ""
        for index, graph in enumerate(call.graphs):
            files[f"{owner}graph_{index}.txt"] = str(graph.captured.graph)
            files[f"{owner}pieces_{index}.txt"] = describe_plan(graph.plan)
    for stitched in (stitched for call in artifact.calls for stitched in call.stitched):
        files[Path(stitched.code.filename).name] = stitched.source
    if artifact.native is not None:
        files["program.cpp"] = str(artifact.native.source.data, "utf-8")
    for unit in artifact.units:
        files[Path(unit.code.filename).name] = unit.source
    (folder / "hotstart").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "hotstart" / name).write_text(text)
