"""Write a document as one page of HTML: styles and script inside, nothing from a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hotstart.artifact.manifest import MALFORMED, Manifest
from hotstart.errors import CorruptArtifact, OptionsError
from hotstart.records.table import memory
from hotstart.reporting import contents, timeline, view
from hotstart.reporting.document import Document

_FOLDER = Path(__file__).parent
_FIRST = 4
"""Names that a list shows before it is unfolded."""

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
    template = _template()
    manifest = document.manifest()
    script = (_FOLDER / "page.js").read_text()
    try:
        shown = _shown(document, manifest)
        return str(
            template.render(
                **shown,
                title=document.file or name,
                eyebrow=_KINDS[document.kind],
                style=(_FOLDER / "page.css").read_text(),
                script=script,
                script_digest=_digest(script),
            )
        )
    except MALFORMED as error:
        expected = "what hotstart writes"
        raise CorruptArtifact(name, "report", expected, f"this: {error}") from error


def _shown(document: Document, manifest: Manifest) -> dict[str, Any]:
    """What the template shows, by the names it has for it."""
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


def _template() -> Any:
    """The template, with its filters.

    Raises:
        OptionsError: a package is missing.
    """
    jinja2, highlight = _packages()
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def code(source: view.Source) -> Any:
        marked: str = highlight.highlighted(source.name, source.text)
        return jinja2.utils.markupsafe.Markup(marked)

    environment.filters |= {"code": code, "memory": memory, "seconds": _seconds, "brief": _brief}
    return environment.get_template("page.html.j2")


def _packages() -> tuple[Any, ModuleType]:
    try:
        import jinja2

        from hotstart.reporting import highlight
    except ImportError as error:
        missing = error.name or "jinja2"
        raise OptionsError(
            f"html: expected the package {missing}, found none\ndo: pip install 'hotstart[report]'"
        ) from error
    return jinja2, highlight


def _seconds(seconds: float) -> str:
    """Seconds with three digits that count."""
    if seconds >= 100:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.3g} ms"


def _brief(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are besides."""
    more = len(names) - _FIRST
    return ", ".join(names[:_FIRST]) + (f" and {more} more" if more > 0 else "")


def _digest(script: str) -> str:
    """The digest by which a page allows its own script, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
