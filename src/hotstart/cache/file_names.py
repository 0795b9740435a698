"""Name the files of a folder and the objects at a remote."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

from hotstart.artifact.header import FORMAT, SIGNED_BYTES
from hotstart.errors import CorruptArtifact, StoreError

LAYOUT = f"v{FORMAT}"
"""Files of another format have another folder, so that versions do not see each other's."""

QUARANTINE, LOCKS, PINS = "quarantine", "locks", "pins"
"""What lies beside the kinds in a folder."""

_KEY = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[0-9a-z][0-9a-z._-]{2,200}")


def place_of(kind: str, name: str) -> str:
    """The path of a file below the root.

    Raises:
        StoreError: the name is none.
    """
    if not is_name(name):
        raise StoreError(f"a name in a store: expected {_NAME.pattern}, found {name!r}")
    return f"{LAYOUT}/{kind}/{name[:2]}/{name}"


def is_name(name: str) -> bool:
    """Tell whether a file of a store may have this name."""
    return _NAME.fullmatch(name) is not None


def is_key(text: str) -> bool:
    """Tell whether a text may be the digest of a program's key."""
    return _KEY.fullmatch(text) is not None


def program_name(header: bytes) -> str:
    """The name of a file, of its signed bytes, which hold the digests of all the rest."""
    return hashlib.sha256(header[:SIGNED_BYTES]).hexdigest()


def require_program(path: Path, name: str) -> None:
    """See that a program's file is the one that was written here, and not another whole one.

    Raises:
        CorruptArtifact: it is another.
    """
    with contextlib.suppress(OSError), path.open("rb") as file:  # loading says what is wrong
        found = program_name(file.read(SIGNED_BYTES))
        if found != name:
            raise CorruptArtifact(path, "header", f"SHA-256 {name}", found)
