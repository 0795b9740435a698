"""The header of a `.hot` file: format, sizes, digest and signature."""

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple

from hotstart.errors import ArtifactError, CorruptArtifact, IncompatibleArtifact

FORMAT = 1
SEVERAL = 2
"""The format of files with several targets."""

SIGNED_BYTES = 64

_MAGIC = b"HOTSTART"
_SIGNED = struct.Struct("<8sIIQQ32s")
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
HEADER_BYTES = SIGNED_BYTES + _KEY_BYTES + _SIGNATURE_BYTES
_UNSIGNED = bytes(_KEY_BYTES + _SIGNATURE_BYTES)
_ALIGNMENT = 64

Sign = Callable[[bytes], tuple[bytes, bytes]]


class Header(NamedTuple):
    """Fields of the header.

    Attributes:
        format: of the file.
        signed: its first 64 bytes.
        public_key: None if the file is unsigned.
        signature: None if the file is unsigned.
        size: of the file, in bytes.
        manifest_bytes: the size of the manifest, or of the index.
        digest: of the manifest, or of the index.
        area: where the blob area or the pool begins.
    """

    format: int
    signed: bytes
    public_key: bytes | None
    signature: bytes | None
    size: int
    manifest_bytes: int
    digest: bytes
    area: int


def read_header(name: str, header: bytes, bytes_there: int | None = None) -> Header:
    """Read the header of a file of so many bytes, if it is known how many.

    Raises:
        CorruptArtifact: it is none, or of a file of another size.
        IncompatibleArtifact: it is of another format.
    """
    if not header.startswith(_MAGIC):
        found = f"{header[: len(_MAGIC)]!r}" if header else "an empty file"
        raise CorruptArtifact(name, "header", f"{_MAGIC!r}", found)
    # Another format may have a header of another length, so this one comes first.
    encoded = header[8:12]
    format = int.from_bytes(encoded, "little")
    if len(encoded) == 4 and format not in (FORMAT, SEVERAL):
        raise IncompatibleArtifact(name, [("format", f"{FORMAT} or {SEVERAL}", str(format))])
    if len(header) < HEADER_BYTES:
        raise CorruptArtifact(name, "header", f"{HEADER_BYTES} bytes", f"{len(header)}")
    signed, tail = header[:SIGNED_BYTES], header[SIGNED_BYTES:]
    _, _, reserved, size, manifest_bytes, digest = _SIGNED.unpack(signed)
    if reserved:
        raise CorruptArtifact(name, "header", "zero in the reserved field", f"{reserved}")
    if bytes_there is not None and size != bytes_there:
        raise CorruptArtifact(name, "size", f"{size} bytes", f"{bytes_there}")
    end = HEADER_BYTES + manifest_bytes
    if (area := aligned(end) if format == FORMAT else end) > size:
        expected = f"at least {area} bytes, for a manifest of {manifest_bytes}"
        raise CorruptArtifact(name, "size", expected, f"{size}")
    key, signature = None, None
    if tail != _UNSIGNED:
        key, signature = tail[:_KEY_BYTES], tail[_KEY_BYTES:]
        if not (any(key) and any(signature)):
            found = "a key only" if any(key) else "a signature only"
            raise CorruptArtifact(name, "header", "a key and a signature, or neither", found)
    return Header(format, signed, key, signature, size, manifest_bytes, digest, area)


def make_header(format: int, size: int, text: bytes, sign: Sign | None) -> list[bytes]:
    """The header of a file of so many bytes, given its manifest or index."""
    digest = hashlib.sha256(text).digest()
    signed = _SIGNED.pack(_MAGIC, format, 0, size, len(text), digest)
    key, signature = bytes(_KEY_BYTES), bytes(_SIGNATURE_BYTES)
    if sign is not None:
        key, signature = sign(signed)
        lengths = (len(key), len(signature))
        if lengths != (_KEY_BYTES, _SIGNATURE_BYTES) or not (any(key) and any(signature)):
            raise ArtifactError(
                f"a signature: expected a key of {_KEY_BYTES} bytes and a signature of "
                f"{_SIGNATURE_BYTES}, not all zeros, found {lengths[0]} and {lengths[1]} bytes. "
                "Sign with an Ed25519 key."
            )
    return [signed, key, signature]


def aligned(position: int) -> int:
    """Round a position in a file up to where a blob may begin."""
    return -(-position // _ALIGNMENT) * _ALIGNMENT
