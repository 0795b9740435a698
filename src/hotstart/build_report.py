"""List the pieces, units, variants and splits of a build, for its report."""

from __future__ import annotations

import resource
from collections.abc import Sequence

from hotstart._torch.graphs.source_lines import without_folders
from hotstart._torch.graphs.symbols import readable
from hotstart.records.report import (
    PieceInfo,
    SplitReport,
    Summary,
    UnitReport,
    VariantReport,
    WorkerReport,
)
from hotstart.records.shapes import labelled
from hotstart.specialize.compile import CompiledCall, units_of
from hotstart.specialize.parts import Split
from hotstart.specialize.trace import TracedCall


def piece_infos(calls: Sequence[TracedCall]) -> tuple[PieceInfo, ...]:
    """Describe the pieces of all graphs as users see them."""
    first: dict[str, str] = {}
    infos = []
    for piece in (p for call in calls for graph in call.graphs for p in graph.plan.pieces):
        known = first.setdefault(piece.digest, piece.name)
        reused = known if known != piece.name and piece.kind == "compiled" else None
        infos.append(PieceInfo(piece.name, piece.digest, piece.kind, piece.layers, reused))
    return tuple(infos)


def list_made(
    pieces: Sequence[PieceInfo],
    calls: Sequence[CompiledCall],
    not_native: Sequence[tuple[str, str]] = (),
    workers: WorkerReport = WorkerReport(),  # noqa: B008  a record
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
        workers=workers,
    )


def _of_variants(calls: Sequence[CompiledCall]) -> tuple[list[UnitReport], list[VariantReport]]:
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
        conditions=tuple((readable(c.expr), without_folders(c.source)) for c in split.conditions),
        into=tuple(labelled(call, part.variant) for part in split.into),
    )
