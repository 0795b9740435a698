"""Ask whether the signature of a file is trusted, before anything else of it is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable

from hotstart.artifact.disk import OpenFile
from hotstart.artifact.header import HEADER_BYTES, Header, read_header
from hotstart.errors import UntrustedArtifact
from hotstart.faults import path_of

Trust = Callable[[bytes, bytes | None, bytes | None], str | None]
"""Says what is wrong with a signature, given the signed bytes, the public key and the signature,
the last two None where there is none; None if a trusted key made it."""


def require_trusted(name: str, header: Header, trust: Trust | None) -> None:
    """Ask whether the signature in a header is trusted, if that is wanted.

    Raises:
        UntrustedArtifact: it is not.
    """
    if trust is None:
        return
    found = trust(header.signed, header.public_key, header.signature)
    if found is not None:
        raise UntrustedArtifact(name, found)


def require_trusted_file(file: str | os.PathLike[str], trust: Trust) -> None:
    """Verify the header of a file and its signature, and read nothing else.

    Raises:
        ArtifactError: as `container.read`.
    """
    with OpenFile(path_of("file", file)) as source:
        start = source.start(HEADER_BYTES)
        require_trusted(source.name, read_header(source.name, start, source.size), trust)


def require_trusted_start(name: str, start: bytes, trust: Trust) -> None:
    """Verify the signature in the first `HEADER_BYTES` of what is elsewhere, and nothing else.

    Raises:
        CorruptArtifact: they are no header.
        IncompatibleArtifact: they are of another format.
        UntrustedArtifact: the signature is not trusted.
    """
    require_trusted(name, read_header(name, start), trust)
