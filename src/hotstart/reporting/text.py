"""Tables and documents as text. Imports no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from hotstart.records.report import render
from hotstart.records.table import columns, memory
from hotstart.reporting import contents
from hotstart.reporting.contents import Table
from hotstart.reporting.document import Document

_WIDTH = 100
_LONGEST = 60
"""Characters of a cell that is not its row's last; those are wrapped."""


def document_text(document: Document) -> str:
    """A document as text: what was made and the times, then what is in it.

    Raises:
        CorruptArtifact: the artifact in it is none.
    """
    manifest = document.manifest()
    parts = [table_text(Table(document.file or "a program", [*_about(document)]))]
    if document.kind != "file":
        parts.append(render(document.report))
    if document.around:
        rows = [(name, f"{seconds:.2f} s") for name, seconds in document.around.items()]
        parts.append(table_text(Table("the whole command", rows, align="<>")))
    if document.copied:
        rows = [(name, f"{count} x") for name, count in document.copied.items()]
        parts.append(table_text(Table("copied into another layout by calls", rows, align="<>")))
    parts += [table_text(table) for table in contents.sections(manifest)]
    return "\n\n".join(parts)


def _about(document: Document) -> Iterator[tuple[str, str]]:
    yield "report by", f"hotstart {document.made_by}"
    if document.file:
        yield "size", memory(document.size)
    yield from contents.about(document.manifest())


def table_text(table: Table) -> str:
    """A title with rows below it, no wider than a page; the last column is wrapped."""
    rows = [table.head, *table.rows] if table.head else table.rows
    cells = [[*(_cut(cell) for cell in row[:-1]), _line(row[-1])] for row in rows]
    taken = sum(2 + max(map(len, column)) for column in list(zip(*cells, strict=True))[:-1])
    lines: list[list[str]] = []
    for *first, last in cells:
        wide = max(_WIDTH - taken - 2, 20)
        parts = textwrap.wrap(last, wide, break_on_hyphens=False) or [""]
        lines.append([*first, parts[0]])
        lines += [[*("" for _ in first), part] for part in parts[1:]]
    shown = columns(lines, table.align or "<" * len(lines[0])) if lines else ["none"]
    return "\n  ".join([_line(table.title), *shown])


def _cut(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 13]}...{line[-10:]}"


def _line(text: str) -> str:
    return " ".join(text.split())
