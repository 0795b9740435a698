"""Turn links of a page of the repository into links of the site.

A page of `docs/` links to what is around it: `../README.md`, `../examples/serve.py`, `adr`. On the
site these are pages too, at other places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

_FENCE = re.compile(r"^\s*(```+|~~~+)")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_ITEM = re.compile(r"^(\s*)([-*]|\d+\.)\s")
_INDENT = 2.5
"""Spaces of a level: two under `-`, three under `1.`."""

Place = Callable[[str], str]
"""The place on the site of a file of the repository, both as relative paths."""


class DeadLink(Exception):
    """A page links to a file that is not in the repository."""


def staged(text: str, source: str, page: str, place: Place) -> str:
    """Return the text of a page as the site has it.

    Args:
        text: Markdown.
        source: where the page is in the repository, such as `docs/cache.md`.
        page: where it is on the site, such as `cache.md`.
        place: says where on the site a file of the repository is.

    Raises:
        DeadLink: raised by `place`.
    """

    def link(found: re.Match[str]) -> str:
        target = moved(found[2], source, page, place)
        return f"{found[1]}{target}{found[3]}"

    lines = (line if fenced else _LINK.sub(link, line) for fenced, line in _lines(text))
    return nested("\n".join(lines))


def moved(link: str, source: str, page: str, place: Place) -> str:
    """Return a link as the site has it; one that leads out of the repository stays as it is."""
    path, mark, anchor = link.partition("#")
    if not path or ":" in path:
        return link
    target = os.path.normpath(PurePosixPath(source).parent / path)
    found = os.path.relpath(place(target), PurePosixPath(page).parent)
    return f"{found}{mark}{anchor}"


def nested(text: str) -> str:
    """Indent nested lists by four spaces a level, as Python-Markdown asks for."""
    made: list[str] = []
    inside = False
    for fenced, line in _lines(text):
        spaces = len(line) - len(line.lstrip(" "))
        if not fenced and line.strip():
            inside = bool(_ITEM.match(line)) if not spaces else inside
        if inside and spaces and line.strip():
            line = " " * (4 * max(1, round(spaces / _INDENT))) + line.lstrip(" ")
        made.append(line)
    return "\n".join(made)


def _lines(text: str) -> Iterator[tuple[bool, str]]:
    """Yield each line, and whether it is in a fenced block, its fences included."""
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if fence:
            yield True, line
            if found and line.strip().startswith(fence):
                fence = ""
        else:
            fence = found[1] if found else ""
            yield bool(found), line
