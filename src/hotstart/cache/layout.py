"""Where files lie in a folder, and objects at a remote."""

from __future__ import annotations

import re

from hotstart.artifact import container
from hotstart.errors import StoreError

LAYOUT = f"v{container.FORMAT}"
"""Files of another format have another folder, so that versions do not see each other's."""

QUARANTINE, LOCKS, PINS = "quarantine", "locks", "pins"
"""What lies beside the kinds in a folder."""

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
    """Whether a file of a store may have this name."""
    return _NAME.fullmatch(name) is not None
