"""Say what is in a file, and whether it is whole. Compares nothing with this machine.

Nothing here imports torch.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hotstart.artifact import container, signing, weights_file
from hotstart.artifact.compatibility import unreadable
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.manifest import MALFORMED, Manifest, outline
from hotstart.errors import UntrustedArtifact
from hotstart.faults import path_of

File = str | os.PathLike[str]
PublicKey = str | os.PathLike[str] | bytes


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
