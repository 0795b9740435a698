"""Write a document as one page of HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hotstart.artifact.manifest import MALFORMED, Manifest
from hotstart.errors import CorruptArtifact, OptionsError
from hotstart.reporting import contents, timeline, view
from hotstart.reporting.document import Document
from hotstart.reporting.rendering import missing, rendered

_KINDS = {"build": "Build report", "load": "Load report", "file": "Artifact"}


def page_of(document: Document, name: str) -> str:
    """A document as a page.

    Args:
        document: the document; whatever it says is escaped.
        name: of the file it comes from, for the title where it names no artifact.

    Raises:
        OptionsError: a package is missing.
        CorruptArtifact: the artifact in the document is none.
    """
    code = _code_filter()
    manifest = document.manifest()
    try:
        return rendered(
            "report",
            _shown(document, manifest),
            title=document.file or name,
            eyebrow=_KINDS[document.kind],
            written_by="hotstart report",
            made_by=document.made_by,
            filters={"code": code},
        )
    except OptionsError:  # a ValueError, too
        raise
    except MALFORMED as error:
        expected = "what hotstart writes"
        raise CorruptArtifact(name, "report", expected, f"this: {error}") from error


def _shown(document: Document, manifest: Manifest) -> dict[str, Any]:
    """Values for the template, by its names for them."""
    report = document.report
    kinds = view.kinds_of(document, manifest)
    whole = report.wall_s or 1.0
    phases = sorted(report.phases.items(), key=lambda each: -each[1])
    return {
        "document": document,
        "report": report,
        "kinds": kinds,
        "repeated": [kind for kind in kinds if len(kind.pieces) > 1],
        "ribbons": view.ribbons_of(kinds, manifest.pieces),
        "lanes": timeline.lanes_of(report, kinds),
        "ticks": timeline.ticks_of(report.wall_s),
        "warnings": view.warnings_of(document, kinds),
        "phases": [(name, seconds, 100 * seconds / whole) for name, seconds in phases],
        "about": contents.about(manifest),
        "calls": [table for call in manifest.calls for table in contents.call_tables(call)],
        "weights": contents.weights_table(manifest),
        "origins": list(contents.origin_tables(manifest)),
        "targets": [each.target for each in manifest.targets],
        "stitched": view.stitched_sources(document, manifest),
        "slowest": max((kind.seconds for kind in kinds), default=0.0),
    }


def _code_filter() -> Callable[[view.Source], Any]:
    """The filter that highlights generated code.

    Raises:
        OptionsError: a package is missing.
    """
    try:
        from markupsafe import Markup

        from hotstart.reporting.highlight import highlighted
    except ImportError as error:
        raise missing(error) from error

    def code(source: view.Source) -> Any:
        return Markup(highlighted(source.name, source.text))

    return code
