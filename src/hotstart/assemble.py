"""Make the rest of an artifact once units are there: stitched and native code, fingerprint."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from hotstart import build_report
from hotstart._torch.inductor.cross import cross_compiler, libc_of
from hotstart._torch.structured_trace import trace_artifact
from hotstart.artifact import fingerprint
from hotstart.compilers import Compiler
from hotstart.errors import OptionsError
from hotstart.events import Clock
from hotstart.guards.sources import sources
from hotstart.native.build import Libraries, Reasons, build_native
from hotstart.native.wiring import make_wiring
from hotstart.options import Options
from hotstart.partition.tokens import hash_token
from hotstart.records.artifact import (
    Artifact,
    CompiledUnit,
    NativeProgram,
    Requirements,
    StitchedCall,
)
from hotstart.records.contract import Contract
from hotstart.records.report import Summary, WorkerReport
from hotstart.records.shapes import labelled
from hotstart.specialize.compile import CompiledCall, units_of
from hotstart.specialize.piece_store import PieceStore
from hotstart.specialize.trace import TracedCall
from hotstart.specialize.trace_model import TracedModel
from hotstart.stitching.stitch import stitch
from hotstart.targets import TargetName, is_foreign, marks_of

log = logging.getLogger("hotstart")


@dataclass(frozen=True)
class Common:
    """Parts that the artifacts for all targets share.

    Attributes:
        traced: the model, with the graphs of its calls.
        contracts: what each call must satisfy.
        workers: what worker processes took.
    """

    traced: TracedModel
    contracts: Sequence[Contract]
    workers: WorkerReport


def make_artifact(
    common: Common,
    compiled: Sequence[CompiledCall],
    compiler: Compiler,
    target: TargetName,
    options: Options,
    libraries: Libraries,
    kept: PieceStore | None,
    clock: Clock,
) -> tuple[Artifact, Summary]:
    """Make the artifact for a target, and the list of what was made for it.

    Args:
        common: what it shares with those for other targets.
        compiled: the calls, with units for the target.
        compiler: made these units.
        target: the processors that they are for.
        options: those of the build.
        libraries: those of the build so far.
        kept: what earlier builds compiled for the target.
        clock: is told of the phases.

    Raises:
        OptionsError: as `make_native`.
    """
    traced, requirements = common.traced, common.traced.requirements
    units = units_of(compiled)
    with clock.phase("stitch"):
        calls = tuple(
            stitch_call(call, requirements, contract)
            for call, contract in zip(compiled, common.contracts, strict=True)
        )
    with clock.phase("native"):
        native, not_native = make_native(
            requirements, calls, units, options, libraries, kept, target
        )
    with clock.phase("fingerprint"):
        fingerprint = make_fingerprint(traced.calls, units, compiler, target, options.targets)
    with clock.phase("report"):
        pieces = build_report.piece_infos(traced.calls)
        made = build_report.list_made(pieces, compiled, not_native, common.workers)
    artifact = Artifact(
        requirements=requirements,
        calls=calls,
        units=units,
        captured=tuple(traced.weights.captured.items()),
        pieces=pieces,
        fingerprint=fingerprint,
        report=made.reproducible(),
        naming=traced.naming,
        native=native,
    )
    return artifact, made


def stitch_call(call: CompiledCall, requirements: Requirements, contract: Contract) -> StitchedCall:
    """Write the function of every variant of a call."""
    made = []
    for part in call.parts:
        units = {piece: each.unit for piece, each in part.units.items()}
        made.append(stitch(part.plan, requirements, contract, part.variant, units))
        trace_artifact(f"hotstart_stitched_{part.name}", partial(str, made[-1].source))
    return StitchedCall(call.traced.name, call.traced.method, contract, tuple(made))


def make_native(
    requirements: Requirements,
    calls: Sequence[StitchedCall],
    units: Sequence[CompiledUnit],
    options: Options,
    libraries: Libraries,
    kept: PieceStore | None,
    target: TargetName,
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
    if requirements.know_ranks():
        native, reasons = None, tuple(_of_several_processes(calls))
    else:
        by_key = {unit.key: unit for unit in units}
        native, reasons = build_native(calls, by_key, libraries, elsewhere, kept, target)
    if reasons and options.form == "native":
        listed = "".join(f"\n  {variant}: {reason}" for variant, reason in reasons)
        raise OptionsError(
            f"form: got 'native', and variants have steps without a native form:{listed}\n"
            "do: take 'auto', which runs them as Python"
        )
    if native is not None:
        native = replace(native, wiring=make_wiring(native, requirements, calls, units))
    return native, reasons


def _of_several_processes(calls: Sequence[StitchedCall]) -> Iterator[tuple[str, str]]:
    """Say for each variant why it has no native form: what runs without Python has no processes."""
    for call in calls:
        for each in call.stitched:
            found = re.search(r"_c10d_functional\w*\.\w+", each.source)
            asked = "forward may ask which process it runs in"
            reason = f"`{found[0]}`: other processes take part" if found else asked
            yield labelled(call.name, each.variant), reason


def make_fingerprint(
    calls: Sequence[TracedCall],
    units: Sequence[CompiledUnit],
    compiler: Compiler,
    target: TargetName,
    targets: Sequence[TargetName],
) -> dict[str, Any]:
    """The named parts that decide where the artifact fits, and what it was made of."""
    libc = libc_of(cross_compiler(target)) if is_foreign(target) else None
    parts = fingerprint.allowed(target, libc)
    if not any(unit.kernels for unit in units):
        parts["instructions"] = marks_of(targets, target)  # nothing in it is native code
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
