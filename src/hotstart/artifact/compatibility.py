"""Say what is in a file, whether it is whole, and whether it fits here, before it is loaded.

A file that was built elsewhere, or by another version, is compared part by part: `misfits` is a
plain comparison of what `fingerprint` reads, so tests need no other hardware. A part that does not
fit is named together with what is missing; another format of the file is refused before that,
in `container`. Nothing here imports torch.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from hotstart.artifact import container, fingerprint, signing, weights_file
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.manifest import MALFORMED, Manifest, outline
from hotstart.errors import (
    ArtifactError,
    CorruptArtifact,
    IncompatibleArtifact,
    UntrustedArtifact,
)
from hotstart.faults import path_of
from hotstart.guards.sources import Source, changed_sources
from hotstart.version import VERSION

_NOT_COMPARED = frozenset({"target", "options", "graph", "sources"})
"""Parts that say what was built, not where it runs; sources are compared by `changed_sources`."""

File = str | os.PathLike[str]
Scope = Literal["all", "beside_guards", "found"]
"""The functions to compare.

all: every one that was traced.
beside_guards: only those that no guard covers; guards are compared after this.
found: only those whose files exist here; none of them is going to run."""
PublicKey = str | os.PathLike[str] | bytes


class Preface(msgspec.Struct, frozen=True):
    """The part of a manifest that says where the artifact fits."""

    fingerprint: dict[str, Any]


def inspect(file: File) -> Manifest:
    """Read what an artifact says of itself: fingerprint, contract, pieces, units, report, blobs.

    The manifest's own digest is verified; blobs are not read. Imports no torch, and nothing else
    that the artifact mentions.

    Raises:
        ArtifactError: the file cannot be read.
        CorruptArtifact: it is damaged, or no artifact.
        IncompatibleArtifact: it is of another format, or of a version with other records.
    """
    data = container.read_manifest(file)
    try:
        return outline(data)
    except MALFORMED as error:
        raise unreadable(file, data, error) from error


def verify(file: File, trusted_keys: Sequence[PublicKey] | None = None) -> dict[str, Any]:
    """Check every byte of an artifact, and its signature if keys are given; or prepared weights.

    Returns:
        What was verified: `bytes`, `blobs`, and `signed_by`, the key it names; whether that key is
        to be trusted is checked only where keys are given.

    Raises:
        ArtifactError: as `inspect`; `UntrustedArtifact` if no trusted key signed it.
    """
    if (prepared := _verified_weights(file, trusted_keys is not None)) is not None:
        return {"bytes": prepared, "blobs": 1, "signed_by": None}
    contents = container.read(file, signing.truster(trusted_keys))
    key = contents.public_key
    return {
        "bytes": Path(file).stat().st_size,
        "blobs": len(contents.blobs),
        "signed_by": None if key is None else base64.b64encode(key).decode(),
    }


def _verified_weights(file: File, trusted: bool) -> int | None:
    """Check every byte of prepared weights; None if a file holds something else.

    Raises:
        ArtifactError: as `weights_file.verify`; `UntrustedArtifact` if a signature is asked for.
    """
    with OpenFile(path_of("file", file)) as source:
        if not weights_file.is_one(source.start(len(weights_file.MAGIC))):
            return None
    if trusted:
        raise UntrustedArtifact(file, "none, as prepared weights have none")
    with OpenFile(path_of("file", file)) as source:
        return weights_file.verify(source)


def require_fit(
    file: File, manifest: bytes, compare_source: bool, scope: Scope = "beside_guards"
) -> None:
    """Compare a manifest's fingerprint with this process.

    Args:
        file: the artifact.
        manifest: its manifest.
        compare_source: whether functions that were traced count.
        scope: which of them.

    Raises:
        CorruptArtifact: there is no fingerprint.
        IncompatibleArtifact: with every part that differs.
    """
    try:
        expected = msgspec.json.decode(manifest, type=Preface).fingerprint
        differences = misfits(expected, fingerprint.host())
        if compare_source:
            recorded = msgspec.convert(expected.get("sources", {}), dict[str, Source])
            differences += changed_sources(
                recorded, loose=scope == "beside_guards", required=scope != "found"
            )
    except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(file, "manifest", "a fingerprint", str(error)) from error
    if differences:
        raise IncompatibleArtifact(file, differences)


def unreadable(file: File, manifest: bytes, error: Exception) -> ArtifactError:
    """The error for a verified manifest that cannot be read: another version's, or none of ours."""
    with contextlib.suppress(msgspec.MsgspecError):
        built = msgspec.json.decode(manifest, type=Preface).fingerprint.get("hotstart")
        if isinstance(built, str) and built != VERSION:
            here = f"those of hotstart {VERSION}, which cannot read them: {error}"
            return IncompatibleArtifact(file, [("records", f"those of hotstart {built}", here)])
    return CorruptArtifact(file, "manifest", "what hotstart writes", f"this: {error}")


def load_check(file: File, compare_source: bool = True) -> None:
    """Say whether an artifact would load here, as far as that shows without a model.

    Functions are compared as their files define them: closures, defaults and globals show only when
    the file is loaded. Imports none of them.

    Raises:
        ArtifactError: as `verify`; `IncompatibleArtifact` with every part that differs.
    """
    require_fit(file, container.read(file).manifest, compare_source, "all")


# --- part by part ---------------------------------------------------------------------------------


def misfits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """List the parts of `expected` that `found` does not fit, in order; sources are not compared.

    Args:
        expected: parts an artifact was built with, by name.
        found: parts of this process, as of `host`, and whatever else the artifact names.

    Returns:
        For each part that does not fit: its name, what was expected and what was found, as text.
    """
    problems: list[tuple[str, str, str]] = []
    for name, needed in expected.items():
        here = found.get(name)
        if name in _NOT_COMPARED or needed in (here, {}):  # {}: devices in older files
            continue
        if name == "instructions" and isinstance(needed, list) and isinstance(here, list):
            if missing := sorted(set(needed).difference(here)):
                problems.append((name, f"a CPU with {', '.join(missing)}", "a CPU without"))
        elif name in ("hotstart", "libc") and isinstance(needed, str):
            if not _same_or_newer(needed, here):
                problems.append((name, f"{needed} or newer", part_text(here)))
        else:
            problems.append((name, part_text(needed), part_text(here)))
    return problems


def part_text(value: Any) -> str:
    """Write a part of a fingerprint in one line."""
    if value is None or value == [] or value == {}:
        return "nothing"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part_text(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(part_text, value))
    return str(value)


def _same_or_newer(needed: str, here: Any) -> bool:
    """Tell whether a release such as `glibc 2.36` is met: the same name, and at least its number.

    Suffixes such as `.dev0` do not count.
    """
    if not isinstance(here, str):
        return False
    family, release = _release(needed)
    family_here, release_here = _release(here)
    return family == family_here and bool(release) and release_here >= release


def _release(text: str) -> tuple[str, list[int]]:
    found = re.match(r"(\D*)(\d+(?:\.\d+)*)", text)
    if found is None:
        return text, []
    # 1.0 is no older than 1.0.0
    return found[1], [int(number) for number in re.sub(r"(\.0+)+$", "", found[2]).split(".")]
