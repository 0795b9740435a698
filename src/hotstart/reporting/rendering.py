"""Render a page of HTML: styles and script inside, nothing from a network. Imports no torch."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hotstart.errors import OptionsError
from hotstart.records.table import memory
from hotstart.version import VERSION

_FOLDER = Path(__file__).parent / "pages"
_FIRST = 4
"""Names that a list shows before it is unfolded."""


def rendered(
    name: str,
    shown: Mapping[str, Any],
    *,
    title: str,
    eyebrow: str,
    written_by: str,
    made_by: str = VERSION,
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """Render a page; whatever it shows is escaped.

    Args:
        name: of the template in `pages/`, and of its script if it has one.
        shown: what the template shows, by the names it has for it.
        title: the heading.
        eyebrow: the kind of page, above the heading.
        written_by: the command that wrote it.
        made_by: the version of hotstart that made what is shown.
        filters: filters of this template besides those that all have.

    Raises:
        OptionsError: a package is missing.
    """
    environment = _environment()
    environment.filters |= filters or {}
    file = _FOLDER / f"{name}.js"
    script = file.read_text() if file.is_file() else ""
    return str(
        environment.get_template(f"{name}.html.j2").render(
            **shown,
            title=title,
            eyebrow=eyebrow,
            written_by=written_by,
            made_by=made_by,
            style=(_FOLDER / "page.css").read_text(),
            script=script,
            script_digest=_digest(script),
        )
    )


def require_packages() -> None:
    """See that pages can be rendered, before anything that takes long.

    Raises:
        OptionsError: a package is missing.
    """
    _jinja2()


def missing(error: ImportError) -> OptionsError:
    """The error of a page for which a package is not installed."""
    return OptionsError(
        f"html: expected the package {error.name or 'jinja2'}, found none\n"
        "do: pip install 'hotstart[report]'"
    )


def _environment() -> Any:
    """The templates, with the filters that all have.

    Raises:
        OptionsError: Jinja2 is missing.
    """
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"memory": memory, "seconds": seconds_text, "brief": _brief}
    return environment


def _jinja2() -> ModuleType:
    try:
        import jinja2
    except ImportError as error:
        raise missing(error) from error
    return jinja2


def seconds_text(seconds: float) -> str:
    """Write seconds with three digits that count."""
    if seconds >= 100:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-4 or not seconds:
        return f"{1e3 * seconds:.3g} ms"
    return f"{1e6 * seconds:.3g} µs"


def _brief(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are besides."""
    more = len(names) - _FIRST
    return ", ".join(names[:_FIRST]) + (f" and {more} more" if more > 0 else "")


def _digest(script: str) -> str:
    """The digest by which a page allows its own script, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
