"""Lay out blobs in their area, and list them in a table."""

import hashlib
from collections.abc import Mapping
from typing import Annotated

import msgspec

from hotstart.artifact.header import aligned
from hotstart.errors import ArtifactError

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Row(msgspec.Struct, frozen=True):
    """One row of the table of blobs.

    Attributes:
        name: unique in the file, never empty.
        offset: bytes from the start of the blob area.
        size: bytes.
        sha256: digest of the blob, in hexadecimal.
    """

    name: Annotated[str, msgspec.Meta(min_length=1)]
    offset: _Count
    size: _Count
    sha256: str


def place_blobs(blobs: Mapping[str, bytes | memoryview]) -> tuple[list[Row], list[bytes]]:
    """The table of blobs, and the parts of their area, with gaps."""
    table: list[Row] = []
    parts: list[bytes] = []
    end = 0
    for name, blob in blobs.items():
        if not name:
            raise ArtifactError("a blob's name: expected a text, found ''. Name every blob.")
        data = bytes(blob)
        offset = aligned(end)
        table.append(Row(name, offset, len(data), hashlib.sha256(data).hexdigest()))
        parts += [bytes(offset - end), data]
        end = offset + len(data)
    return table, parts
