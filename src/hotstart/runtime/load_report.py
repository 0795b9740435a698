"""Make the report of a load. Imports no torch."""

from __future__ import annotations

from hotstart.records.artifact import Artifact
from hotstart.records.report import Summary, UnitReport


def list_loaded(artifact: Artifact) -> Summary:
    """List what was loaded; the build's own report stays in the artifact."""
    built = artifact.report["units"]
    units = tuple(
        UnitReport(
            unit["piece"],
            unit["variant"],
            "reused" if unit["reused_from"] else "loaded",
            0.0,
            unit["reused_from"],
        )
        for unit in built
    )
    return Summary(
        pieces=len(artifact.pieces),
        unique=len(artifact.units),
        reused=len(units) - len(artifact.units),
        units=units,
        op_by_op=tuple(map(tuple, artifact.report.get("op_by_op", ()))),
        proven=sum(bool(unit.proof.sizes) for unit in artifact.units),
        without=tuple(map(tuple, artifact.report.get("without", ()))),
        unproven=tuple(map(tuple, artifact.report.get("unproven", ()))),
        not_packed=tuple(map(tuple, artifact.report.get("not_packed", ()))),
        linears=tuple(map(tuple, artifact.report.get("linears", ()))),
        not_native=tuple(map(tuple, artifact.report.get("not_native", ()))),
    )
