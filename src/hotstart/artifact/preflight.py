"""Inspect, verify and compare an artifact before it is loaded. Nothing here imports torch."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hotstart.artifact import container, fingerprint
from hotstart.artifact.manifest import MALFORMED, Manifest, outline
from hotstart.errors import CorruptArtifact, IncompatibleArtifact, OptionsError
from hotstart.guards.sources import Source, changed_sources

File = str | os.PathLike[str]
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
        IncompatibleArtifact: it is of another format.
    """
    data = container.read_manifest(file)
    try:
        return outline(data)
    except MALFORMED as error:
        raise CorruptArtifact(file, "manifest", "what hotstart writes", f"this: {error}") from error


def verify(file: File, trusted_keys: Sequence[PublicKey] | None = None) -> dict[str, Any]:
    """Check every byte of an artifact, and its signature if keys are given.

    Returns:
        What was verified: `bytes`, `blobs`, and `signed_by`, the key it names; whether that key is
        to be trusted is checked only where keys are given.

    Raises:
        ArtifactError: as `inspect`; `UntrustedArtifact` if no trusted key signed it.
    """
    contents = container.read(file, truster(trusted_keys))
    key = contents.public_key
    return {
        "bytes": Path(file).stat().st_size,
        "blobs": len(contents.blobs),
        "signed_by": None if key is None else base64.b64encode(key).decode(),
    }


def require_fit(file: File, manifest: bytes, compare_source: bool, *, loading: bool = True) -> None:
    """Compare a manifest's fingerprint with this process.

    Args:
        file: the artifact.
        manifest: its manifest.
        compare_source: whether functions that were traced count.
        loading: whether their guards are compared afterwards, so that only others count here.

    Raises:
        CorruptArtifact: there is no fingerprint.
        IncompatibleArtifact: with every part that differs.
    """
    try:
        expected = msgspec.json.decode(manifest, type=Preface).fingerprint
        differences = _misfits(expected, compare_source, loading)
    except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(file, "manifest", "a fingerprint", str(error)) from error
    if differences:
        raise IncompatibleArtifact(file, differences)


def load_check(file: File, compare_source: bool = True) -> None:
    """Say whether an artifact would load here, as far as that shows without a model.

    Functions are compared as their files define them: closures, defaults and globals show only when
    the file is loaded. Imports none of them.

    Raises:
        ArtifactError: as `verify`; `IncompatibleArtifact` with every part that differs.
    """
    require_fit(file, container.read(file).manifest, compare_source, loading=False)


def truster(keys: Sequence[PublicKey] | None) -> container.Trust | None:
    """Make the function that checks a signature; None without keys."""
    if keys is None:
        return None
    if not isinstance(keys, Iterable):
        raise OptionsError(f"trusted_keys: got {keys!r}, takes a list of public keys")
    from hotstart.artifact.signing import truster  # needs a package that only signing needs

    return truster(keys)


def _misfits(
    expected: Mapping[str, Any], compare_source: bool, loading: bool
) -> list[tuple[str, str, str]]:
    differences = fingerprint.misfits(expected, fingerprint.host())
    if compare_source:
        recorded = msgspec.convert(expected.get("sources", {}), dict[str, Source])
        differences += changed_sources(recorded, loose=loading)
    return differences
