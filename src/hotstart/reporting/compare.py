"""Find what differs between two documents. Imports no torch."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

import msgspec

from hotstart.artifact.manifest import Manifest
from hotstart.records.details import PieceDetails
from hotstart.records.report import PieceInfo
from hotstart.records.table import memory
from hotstart.reporting.contents import Table, call_tables, fingerprint_parts
from hotstart.reporting.document import Document
from hotstart.reporting.text import table_text

_OPERATORS = 8
"""Operators that a text lists of a piece; the JSON has all."""


class PieceChange(msgspec.Struct, frozen=True):
    """Pieces that one of two programs has, or that differ in both.

    Attributes:
        change: what the second has done to the first.
        before: the piece of the first, by name and the start of its digest; empty if it is new.
        after: that of the second; empty if it is gone.
        layers: the submodules it came from, in the second where it is there.
        operators: those that one has more of than the other, each with `+` or `-` and how many,
            where both documents know the operators.
    """

    change: str
    before: str
    after: str
    layers: tuple[str, ...]
    operators: tuple[str, ...] = ()


class Changed(msgspec.Struct, frozen=True):
    """Something that differs.

    Attributes:
        name: what it is.
        before: in the first; empty if it is not there.
        after: in the second, likewise.
    """

    name: str
    before: str
    after: str


class Differences(msgspec.Struct, frozen=True):
    """Differences between two documents.

    Attributes:
        pieces: those that were added, removed or changed, in the order of the second program.
        fingerprint: parts that differ, options among them.
        contract: arguments, axes and variants that differ.
        report: counts, sizes and findings, such as pieces that run op by op.
        measured: seconds of all phases, and memory, if both documents have them.
    """

    pieces: tuple[PieceChange, ...]
    fingerprint: tuple[Changed, ...]
    contract: tuple[Changed, ...]
    report: tuple[Changed, ...]
    measured: tuple[Changed, ...]


def compare(before: Document, after: Document) -> Differences:
    """Find what differs between two documents.

    Raises:
        CorruptArtifact: the artifact in one of them is none.
    """
    first, second = before.manifest(), after.manifest()
    return Differences(
        pieces=tuple(_pieces(first.pieces, second.pieces, _operators(before), _operators(after))),
        fingerprint=_changes(_fingerprint(first), _fingerprint(second)),
        contract=_changes(_contract(first), _contract(second)),
        report=_changes(_findings(before), _findings(after)),
        measured=tuple(_measured(before, after)),
    )


def differences_text(found: Differences) -> str:
    """The differences as text; tables without a row are left out."""
    rows = list(_piece_rows(found.pieces))
    tables = [Table("pieces", rows, ("", "before", "after", "layers, operators"))]
    for title, changed in (
        ("options and fingerprint", found.fingerprint),
        ("contract", found.contract),
        ("what was made", found.report),
        ("measured; times in seconds", found.measured),
    ):
        listed = [(each.name, _short(each.before), _short(each.after)) for each in changed]
        tables.append(
            Table(
                title, listed, ("", "before", "after"), "<>>" if found.measured is changed else ""
            )
        )
    shown = [table_text(table) for table in tables if table.rows]
    different = any((found.pieces, found.fingerprint, found.contract, found.report))
    return "\n\n".join(shown if different else ["the same but for what was measured", *shown])


def _short(value: str) -> str:
    """A value with the first letters of each digest; `-` for none."""
    return re.sub(r"\b([0-9a-f]{16})[0-9a-f]{48}\b", r"\1", value) or "-"


def _piece_rows(pieces: Iterable[PieceChange]) -> Iterator[tuple[str, str, str, str]]:
    """A row for each piece; operators are listed once for those that changed alike."""
    shown: set[tuple[str, ...]] = set()
    for each in pieces:
        told = [", ".join(each.layers)]
        if each.operators in shown:
            told.append("the same operators")
        elif each.operators:
            more = len(each.operators) - _OPERATORS
            told += each.operators[:_OPERATORS]
            told += [f"and {more} more"] if more > 0 else []
            shown.add(each.operators)
        yield each.change, each.before, each.after, "; ".join(told)


def _pieces(
    first: Sequence[PieceInfo],
    second: Sequence[PieceInfo],
    operators: Mapping[str, Counter[str]],
    others: Mapping[str, Counter[str]],
) -> Iterator[PieceChange]:
    same = _same_start(first, second)
    first, second = first[same:], second[same:]
    old, new = [(p.kind, p.digest) for p in first], [(p.kind, p.digest) for p in second]
    matched = SequenceMatcher(None, old, new, autojunk=False)
    for tag, low, high, start, end in matched.get_opcodes():
        if tag == "equal":
            continue
        both = min(high - low, end - start)
        for a, b in zip(first[low : low + both], second[start : start + both], strict=True):
            more = tuple(_more(operators.get(a.digest), others.get(b.digest)))
            yield PieceChange("changed", _named(a), _named(b), b.layers, more)
        for piece in first[low + both : high]:
            yield PieceChange("removed", _named(piece), "", piece.layers)
        for piece in second[start + both : end]:
            yield PieceChange("added", "", _named(piece), piece.layers)


def _same_start(first: Sequence[PieceInfo], second: Sequence[PieceInfo]) -> int:
    """Count equal pieces at the start: of blocks that repeat, the last ones were added."""
    pairs = zip(first, second, strict=False)
    equal = itertools.takewhile(lambda pair: pair[0].digest == pair[1].digest, pairs)
    return len(list(equal))


def _named(piece: PieceInfo) -> str:
    return f"{piece.name} {piece.digest[:8]}"


def _operators(document: Document) -> dict[str, Counter[str]]:
    return {piece.digest: _called(piece) for piece in document.details.pieces}


def _called(piece: PieceDetails) -> Counter[str]:
    """Count operators with their results, so that another shape counts as another operator."""
    return Counter(f"{each.name} {', '.join(each.results)}" for each in piece.operations)


def _more(before: Counter[str] | None, after: Counter[str] | None) -> Iterator[str]:
    if before is None or after is None:
        return
    for sign, more in (("-", before - after), ("+", after - before)):
        for name, count in more.items():
            yield f"{sign} {name}" + (f" x {count}" if count > 1 else "")


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Changed, ...]:
    return tuple(
        Changed(name, before.get(name, ""), after.get(name, ""))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    )


def _fingerprint(manifest: Manifest) -> dict[str, str]:
    sources = manifest.fingerprint.get("sources", {})
    texts = {f"source {name}": str(each.get("content"))[:8] for name, each in sources.items()}
    return fingerprint_parts(manifest.fingerprint) | texts


def _contract(manifest: Manifest) -> dict[str, str]:
    """List the conditions on a call, by name."""
    rows: dict[str, str] = {}
    for call in manifest.calls:
        for table in call_tables(call):
            kind = table.title.partition(" ")[0].removesuffix("s")
            owner = f"{call.name}: " if call.name else ""
            for name, *cells in table.rows:
                rows[f"{owner}{kind} {name}"] = " ".join(filter(None, cells)) or "yes"
    return rows


def _findings(document: Document) -> dict[str, str]:
    report = document.report
    counts = {
        "pieces": str(report.pieces),
        "units": str(report.unique),
        "reused": str(report.reused),
        "proven": str(report.proven),
        "size of the file": memory(document.size) if document.file else "",
    }
    said = {
        "runs op by op": report.op_by_op,
        "runs as Python": report.not_native,
        "is not packed": report.not_packed,
        "linears": report.linears,
        "is not proven": report.unproven,
    }
    for what, pairs in said.items():
        counts |= {f"{name} {what}": why for name, why in pairs}
    for split in report.splits:
        counts[f"split of {split.variant}"] = ", ".join(
            condition for condition, _ in split.conditions
        )
    return counts


def _measured(before: Document, after: Document) -> Iterator[Changed]:
    if "file" in (before.kind, after.kind):
        return
    first, second = before.report, after.report
    yield Changed("peak memory", memory(first.peak_memory_bytes), memory(second.peak_memory_bytes))
    yield Changed("all", f"{first.wall_s:.3f}", f"{second.wall_s:.3f}")
    for name in dict.fromkeys((*first.phases, *second.phases)):
        a, b = first.phases.get(name), second.phases.get(name)
        yield Changed(name, "" if a is None else f"{a:.3f}", "" if b is None else f"{b:.3f}")
