"""Say what is in a file, and whether it is whole. Compares nothing with this machine.

Nothing here imports torch.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from hotstart.artifact import container, signing, weights_file
from hotstart.artifact.compatibility import best_that_fits, unreadable
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.manifest import MALFORMED, Manifest, TargetContents, outline
from hotstart.artifact.target_index import Target, own_bytes
from hotstart.errors import OptionsError, UntrustedArtifact
from hotstart.faults import path_of

File = str | os.PathLike[str]
PublicKey = str | os.PathLike[str] | bytes


def inspect(file: File, target: str | None = None) -> Manifest:
    """Read what an artifact says of itself: fingerprint, contract, pieces, units, report, blobs.

    The manifest's own digest is verified; blobs are not read. Imports no torch, and nothing else
    that the artifact mentions.

    Args:
        file: the artifact.
        target: the target to read of a file with several; default: the one that a load takes here.

    Raises:
        ArtifactError: the file cannot be read.
        CorruptArtifact: it is damaged, or no artifact.
        IncompatibleArtifact: it is of another format, or of a version with other records.
        OptionsError: the file has no such target.
    """
    manifest = _outline(file, container.read_manifest(file, partial(chosen, file, target)))
    if not (targets := container.read_targets(file)):
        if target not in (None, own := manifest.fingerprint.get("target")):
            raise _no_target(file, target, [str(own)])
        return manifest
    return replace(manifest, targets=tuple(_contents(file, targets)))


def inspect_json(file: File, target: str | None = None) -> dict[str, Any]:
    """Read the manifest itself, as JSON has it, with `targets` where the file has several.

    Raises:
        ArtifactError: as `inspect`.
    """
    if targets := container.read_targets(file):
        text = container.read_manifest(file, partial(chosen, file, target))
        return {**msgspec.json.decode(text), "targets": [*_contents(file, targets)]}
    if target is not None:
        inspect(file, target)  # is that its target?
    whole: dict[str, Any] = msgspec.json.decode(container.read_manifest(file))
    return whole


def _outline(file: File, data: bytes) -> Manifest:
    try:
        return outline(data)
    except MALFORMED as error:
        raise unreadable(file, data, error) from error


def chosen(file: File, target: str | None, targets: Sequence[Target]) -> Target:
    """Choose a target of a file: the one of that name, else the one that a load takes here.

    Raises:
        OptionsError: the file has no such target.
    """
    if target is None:
        return best_that_fits(targets)
    found = next((each for each in targets if each.target == target), None)
    if found is None:
        raise _no_target(file, target, [each.target for each in targets])
    return found


def _no_target(file: File, target: object, there: Sequence[str]) -> OptionsError:
    return OptionsError(f"target: got {target!r}; {file} is for {', '.join(there)}")


def _contents(file: File, targets: Sequence[Target]) -> Iterator[TargetContents]:
    for target, own in zip(targets, own_bytes(targets), strict=True):
        choose = partial(chosen, file, target.target)
        manifest = _outline(file, container.read_manifest(file, choose))
        yield TargetContents(
            target=target.target,
            instructions=target.instructions,
            units=len(manifest.units),
            kernels=sum(blob.name.startswith("kernel_") for blob in manifest.blobs),
            bytes=target.size,
            own_bytes=own,
        )


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
    every = list(container.read_all(file, signing.truster(trusted_keys)))
    key = every[0].public_key
    return {
        "bytes": Path(file).stat().st_size,
        "blobs": sum(len(contents.blobs) for contents in every),
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
