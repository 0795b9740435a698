"""What tests of caches share."""

from __future__ import annotations

from hotstart import Program


def origin(program: Program) -> str:
    """Whether a program was loaded, or compiled: maybe from pieces that were there already."""
    return "compiled" if "capture" in program.report.phases else "loaded"
