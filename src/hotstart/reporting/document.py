"""The document: one versioned record of a build, a load or a file, as JSON.

Nothing here imports torch, but to describe a program that is in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from hotstart.artifact import container, inspection
from hotstart.artifact.blobs import place_blobs
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.header import HEADER_BYTES
from hotstart.artifact.manifest import MALFORMED, Manifest, outline
from hotstart.errors import ArtifactError, CorruptArtifact
from hotstart.faults import path_of
from hotstart.records.artifact import Artifact
from hotstart.records.details import NO_DETAILS, Details
from hotstart.records.report import Report
from hotstart.version import VERSION

FORMAT = "hotstart report"
VERSION_OF_DOCUMENT = 1
"""Goes up when a field changes its meaning; fields may be added without."""

SUFFIX = ".report.json"
"""What `hotstart build -o encoder.hot` adds to `encoder`."""

Kind = Literal["build", "load", "file"]

_MAGIC = b"HOTSTART"
_TEXTS = (".py", ".cpp")
_EXPECTED = "a report of hotstart"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Document about a program: how it was made, and what is in it.

    Attributes:
        format: `"hotstart report"`.
        version: of the document.
        made_by: the version of hotstart that wrote it.
        kind: what it tells of: a build, a load, or an artifact alone, which has no times.
        file: name of the artifact; empty if there is none.
        size: its bytes.
        identity: SHA-256 of its header, which stands for all of it.
        report: what was made, and the times.
        details: operators, lines and kernels of the pieces, where a build has just made them.
        artifact: the manifest, as `hotstart inspect --json` prints it, without its report.
        sources: text of generated code, by the names of blobs.
        copied: arguments that calls so far had to copy into another layout, with how often.
        around: seconds of the command around a build, by name: the model, the file.
    """

    format: str
    version: int
    made_by: str
    kind: Kind
    file: str = ""
    size: int = 0
    identity: str = ""
    report: Report
    details: Details = NO_DETAILS
    artifact: dict[str, Any]
    sources: dict[str, str]
    copied: dict[str, int] = {}
    around: dict[str, float] = {}

    def manifest(self) -> Manifest:
        """The artifact's manifest as a record.

        Raises:
            CorruptArtifact: it is none.
        """
        told = {**self.artifact, "report": self.report.reproducible()}
        try:
            return outline(msgspec.json.encode(told))
        except MALFORMED as error:
            name = self.file or "the report"
            raise CorruptArtifact(name, "manifest", _EXPECTED, f"this: {error}") from error

    def to_json(self) -> bytes:
        """The document as JSON, indented, in UTF-8."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def document_of_artifact(artifact: Artifact) -> Document:
    """Describe an artifact that is in memory.

    Raises:
        ArtifactError: it holds something that cannot be said as data.
    """
    from hotstart.artifact.write import to_manifest  # it imports torch

    manifest, blobs = to_manifest(artifact)
    whole = msgspec.json.encode({**manifest, "blobs": place_blobs(blobs)[0]})
    plain: dict[str, Any] = msgspec.json.decode(whole)
    report = _kept_report(plain.pop("report"))
    return Document(
        format=FORMAT,
        version=VERSION_OF_DOCUMENT,
        made_by=VERSION,
        kind="file",
        report=report,
        artifact=plain,
        sources=_texts(blobs),
    )


def with_times(
    document: Document,
    kind: Kind,
    report: Report,
    details: Details | None,
    copied: Mapping[str, int],
) -> Document:
    """The document of an artifact, with what is known of its build or load, and of calls since."""
    return replace(
        document, kind=kind, report=report, details=details or NO_DETAILS, copied=dict(copied)
    )


def document_of_file(file: str | os.PathLike[str], target: str | None = None) -> Document:
    """Describe an artifact: all of it is verified, and nothing executed.

    Raises:
        ArtifactError: as `inspection.inspect`.
    """
    contents = container.read(file, None, partial(inspection.chosen, file, target))
    manifest = inspection.inspect_json(file, target)
    try:
        report = _kept_report(manifest.pop("report"))
    except MALFORMED as error:
        raise CorruptArtifact(file, "report", _EXPECTED, f"this: {error}") from error
    return Document(
        format=FORMAT,
        version=VERSION_OF_DOCUMENT,
        made_by=VERSION,
        kind="file",
        file=Path(file).name,
        size=Path(file).stat().st_size,
        identity=identity_of(file),
        report=report,
        artifact=manifest,
        sources=_texts(contents.blobs),
    )


def identity_of(file: str | os.PathLike[str]) -> str:
    """SHA-256 of the header of an artifact, which has the digest of all else.

    Raises:
        ArtifactError: it cannot be read.
    """
    with OpenFile(path_of("file", file)) as source:
        return hashlib.sha256(source.start(HEADER_BYTES)).hexdigest()


def read_document(file: str | os.PathLike[str], target: str | None = None) -> Document:
    """Read a document from JSON; or that of an artifact, from the file beside it if there is one.

    A file beside it that tells of another artifact is left alone.

    Args:
        file: the JSON, or the artifact.
        target: of an artifact with several, the one to describe; the file beside it has the best.

    Raises:
        ArtifactError: it cannot be read, or has another version.
        CorruptArtifact: it is neither.
    """
    with OpenFile(path_of("file", file)) as source:
        start = source.start(len(_MAGIC))
        if start != _MAGIC:
            return _decoded(
                source.name, bytes(start) + bytes(source.take(source.size - len(start)))
            )
    beside = Path(file).with_suffix(SUFFIX)
    if target is None and beside.is_file():
        found = read_document(beside)
        if found.identity == identity_of(file):
            return found
    return document_of_file(file, target)


class _Start(msgspec.Struct):
    format: str
    version: int


def _decoded(name: str, data: bytes) -> Document:
    try:
        start = msgspec.json.decode(data, type=_Start)
        if start.format != FORMAT:
            raise ValueError(f"the format {start.format[:40]!r}")
        if start.version != VERSION_OF_DOCUMENT:
            raise ArtifactError(
                f"{name}: expected a report of version {VERSION_OF_DOCUMENT}, found version "
                f"{start.version}. Show it with the hotstart that wrote it, or build again."
            )
        return msgspec.json.decode(data, type=Document)
    except MALFORMED as error:
        raise CorruptArtifact(name, "report", _EXPECTED, f"this: {error}") from error


def _kept_report(plain: Mapping[str, Any]) -> Report:
    """The part of a build's report that a file keeps, which has no times."""
    parts = {"pieces": 0, "unique": 0, "reused": 0, **plain, "wall_s": 0.0, "phases": {}}
    for name in ("units", "variants"):
        parts[name] = [{"seconds": 0.0, **each} for each in parts.get(name, ())]
    return msgspec.convert(parts, Report)


def _texts(blobs: Mapping[str, bytes | memoryview]) -> dict[str, str]:
    return {
        name: str(data, "utf-8", "replace") for name, data in blobs.items() if name.endswith(_TEXTS)
    }
