"""Write an artifact to one file."""

from __future__ import annotations

import os

from msgspec.structs import replace

from hotstart import container
from hotstart.ir import Artifact
from hotstart.manifest import to_builtins
from hotstart.packaging.check import compare
from hotstart.packaging.pack import pack


def save(
    artifact: Artifact,
    file: str | os.PathLike[str],
    *,
    sign_key: str | os.PathLike[str] | None,
    check: bool,
) -> None:
    """Write an artifact; see `Program.save`.

    Raises:
        ArtifactError: it cannot be said as data, does not run from its file, or the file cannot be
            written.
    """
    container.write(file, packed(artifact, sign_key=sign_key, check=check))


def packed(
    artifact: Artifact, *, sign_key: str | os.PathLike[str] | None, check: bool
) -> list[bytes]:
    """The parts of an artifact's file, in order.

    Raises:
        ArtifactError: it cannot be said as data, or does not run from its file.
    """
    sign = _signer(sign_key)
    manifest, blobs = pack(artifact)
    if check:
        found = compare(artifact, container.pack(to_builtins(manifest), blobs))
        manifest = replace(manifest, check=found)
    return container.pack(to_builtins(manifest), blobs, sign)


def _signer(key: str | os.PathLike[str] | None) -> container.Sign | None:
    if key is None:
        return None
    from hotstart.signing import signer

    return signer(key)
