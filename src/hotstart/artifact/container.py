"""The `.hot` file as bytes: what is in it, and whether it is what was written.

    header      160 bytes, little-endian, without gaps:
                  8  magic, b"HOTSTART"
                  4  format
                  4  reserved, zero
                  8  size of the file, in bytes
                  8  size of the manifest, in bytes
                 32  SHA-256 of the manifest
                 32  public key, zeros if unsigned
                 64  signature of the 64 bytes before the key, zeros if unsigned
    manifest    a JSON object in UTF-8; its key "blobs" lists name, offset, size and SHA-256 of each
    blobs       each starts at a multiple of 64, and so does the area they are in

Zeros fill the gaps, and the file ends with its last blob. Offsets count from the start of the blob
area. The manifest holds the digest of every blob and the header that of the manifest, so the 64
signed bytes stand for the whole file: there is no room in it for other bytes. What the manifest
says besides its blobs is not known here.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from hotstart.artifact.disk import OpenFile
from hotstart.errors import (
    ArtifactError,
    CorruptArtifact,
    IncompatibleArtifact,
    UntrustedArtifact,
)
from hotstart.faults import path_of

FORMAT = 1
SIGNED_BYTES = 64

_MAGIC = b"HOTSTART"
_SIGNED = struct.Struct("<8sIIQQ32s")
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_HEADER_BYTES = SIGNED_BYTES + _KEY_BYTES + _SIGNATURE_BYTES
_UNSIGNED = bytes(_KEY_BYTES + _SIGNATURE_BYTES)
_ALIGNMENT = 64
_LISTED_BYTES = 1024
"""So much is read at once where only the manifest is wanted: all of it, in small files."""

Trust = Callable[[bytes, bytes | None, bytes | None], str | None]
Sign = Callable[[bytes], tuple[bytes, bytes]]

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


class _Manifest(msgspec.Struct):
    blobs: list[Row]


_DECODER = msgspec.json.Decoder(_Manifest)


class Container(msgspec.Struct, frozen=True):
    """A file that was read whole and verified.

    Attributes:
        file: where it was read from.
        manifest: the JSON text.
        blobs: the bytes of every blob, read-only, in file order.
        signed: the header's first 64 bytes, which a signature covers.
        public_key: 32 bytes, None if the file is unsigned.
        signature: 64 bytes, None if the file is unsigned. Nobody but `trust` has checked it.
    """

    file: str
    manifest: bytes
    blobs: dict[str, memoryview]
    signed: bytes
    public_key: bytes | None
    signature: bytes | None


def read(file: str | os.PathLike[str], trust: Trust | None = None) -> Container:
    """Read and verify a whole file through one descriptor.

    Args:
        file: the file.
        trust: called with the signed bytes, the public key and the signature before anything but
            the header is read; returns None to go on, else a text that says what was found.

    Raises:
        CorruptArtifact: the content is not what was written.
        IncompatibleArtifact: the file has another format.
        UntrustedArtifact: `trust` refused.
        ArtifactError: the file cannot be read.
    """
    with OpenFile(path_of("file", file)) as source:
        name, size = source.name, source.size
        header = _header(name, bytes(source.take(min(_HEADER_BYTES, size))), size)
        if trust is not None:
            found = trust(header.signed, header.public_key, header.signature)
            if found is not None:
                raise UntrustedArtifact(name, found)
        padded = bytes(source.take(header.area - _HEADER_BYTES))
        manifest, table = _manifest(name, header, padded)
        return _container(name, header, manifest, table, source.take(size - header.area))


def read_bytes(name: str, data: bytes) -> Container:
    """Verify what would be a whole file, as `read` does.

    Args:
        name: where it is from, for messages.
        data: the bytes.

    Raises:
        CorruptArtifact: they are not what was written.
        IncompatibleArtifact: they have another format.
    """
    header = _header(name, data[:_HEADER_BYTES], len(data))
    manifest, table = _manifest(name, header, data[_HEADER_BYTES : header.area])
    return _container(name, header, manifest, table, memoryview(data)[header.area :])


def read_manifest(file: str | os.PathLike[str]) -> bytes:
    """Read and verify header, manifest and blob table, without reading the blobs.

    Raises:
        CorruptArtifact: header, manifest or the file's size are not what was written.
        IncompatibleArtifact: the file has another format.
        ArtifactError: the file cannot be read.
    """
    with OpenFile(path_of("file", file)) as source:
        start = source.start(_LISTED_BYTES)
        header = _header(source.name, start[:_HEADER_BYTES], source.size)
        if header.area > len(start):
            start += source.take(header.area - len(start))
        return _manifest(source.name, header, start[_HEADER_BYTES : header.area])[0]


def read_key(file: str | os.PathLike[str]) -> bytes | None:
    """Read the public key in a file's header, and nothing else; None if the file is unsigned.

    Raises:
        ArtifactError: as `read_manifest`.
    """
    with OpenFile(path_of("file", file)) as source:
        return _header(source.name, source.start(_HEADER_BYTES), source.size).public_key


def pack(
    manifest: Mapping[str, Any],
    blobs: Mapping[str, bytes | memoryview],
    sign: Sign | None = None,
) -> list[bytes]:
    """The parts of a file, in order. The same arguments give the same bytes.

    Args:
        manifest: what `msgspec.json` can encode, without sets, whose order is not fixed. The key
            "blobs" is added, or replaced where there is one.
        blobs: bytes by name, in the order they get in the file.
        sign: called with the 64 bytes to sign; returns a public key of 32 bytes and a signature of
            64.

    Raises:
        ArtifactError: a blob without a name, or a key or signature of another size.
    """
    table: list[Row] = []
    parts: list[bytes] = []
    end = 0
    for name, blob in blobs.items():
        if not name:
            raise ArtifactError("a blob's name: expected a text, found ''. Name every blob.")
        data = bytes(blob)
        offset = _aligned(end)
        table.append(Row(name, offset, len(data), hashlib.sha256(data).hexdigest()))
        parts += [bytes(offset - end), data]
        end = offset + len(data)
    text = msgspec.json.encode({**manifest, "blobs": table})
    start = _aligned(_HEADER_BYTES + len(text))
    digest = hashlib.sha256(text).digest()
    signed = _SIGNED.pack(_MAGIC, FORMAT, 0, start + end, len(text), digest)
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
    head = [signed, key, signature, text, bytes(start - _HEADER_BYTES - len(text))]
    return [part for part in head + parts if part]


class _Header(NamedTuple):
    """What the header says.

    Attributes:
        signed: its first 64 bytes.
        public_key: None if the file is unsigned.
        signature: None if the file is unsigned.
        size: of the file, in bytes.
        manifest_bytes: the size of the manifest.
        digest: of the manifest.
        area: where the blob area begins.
    """

    signed: bytes
    public_key: bytes | None
    signature: bytes | None
    size: int
    manifest_bytes: int
    digest: bytes
    area: int


def _header(name: str, header: bytes, bytes_there: int) -> _Header:
    """Read the header of a file of so many bytes."""
    if not header.startswith(_MAGIC):
        found = f"{header[: len(_MAGIC)]!r}" if header else "an empty file"
        raise CorruptArtifact(name, "header", f"{_MAGIC!r}", found)
    # Another format may have a header of another length, so this one comes first.
    encoded = header[8:12]
    if len(encoded) == 4 and (other := int.from_bytes(encoded, "little")) != FORMAT:
        raise IncompatibleArtifact(name, [("format", str(FORMAT), str(other))])
    if len(header) < _HEADER_BYTES:
        raise CorruptArtifact(name, "header", f"{_HEADER_BYTES} bytes", f"{len(header)}")
    signed, tail = header[:SIGNED_BYTES], header[SIGNED_BYTES:]
    _, _, reserved, size, manifest_bytes, digest = _SIGNED.unpack(signed)
    if reserved:
        raise CorruptArtifact(name, "header", "zero in the reserved field", f"{reserved}")
    if size != bytes_there:
        raise CorruptArtifact(name, "size", f"{size} bytes", f"{bytes_there}")
    if (area := _aligned(_HEADER_BYTES + manifest_bytes)) > size:
        expected = f"at least {area} bytes, for a manifest of {manifest_bytes}"
        raise CorruptArtifact(name, "size", expected, f"{size}")
    if tail == _UNSIGNED:
        return _Header(signed, None, None, size, manifest_bytes, digest, area)
    key, signature = tail[:_KEY_BYTES], tail[_KEY_BYTES:]
    if not (any(key) and any(signature)):
        found = "a key only" if any(key) else "a signature only"
        raise CorruptArtifact(name, "header", "a key and a signature, or neither", found)
    return _Header(signed, key, signature, size, manifest_bytes, digest, area)


def _manifest(name: str, header: _Header, padded: bytes) -> tuple[bytes, list[Row]]:
    """The manifest, and its blob table, of what lies between header and blob area."""
    manifest, padding = padded[: header.manifest_bytes], padded[header.manifest_bytes :]
    found = hashlib.sha256(manifest)
    if found.digest() != header.digest:
        expected = f"SHA-256 {header.digest.hex()}"
        raise CorruptArtifact(name, "manifest", expected, found.hexdigest())
    if padding.strip(b"\0"):
        raise CorruptArtifact(name, "manifest", "zeros after it", "other bytes")
    try:
        # As text, since a decoder of bytes skips what it does not look for, UTF-8 or not.
        table = _DECODER.decode(manifest.decode()).blobs
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        expected = "a JSON object with a table of blobs"
        raise CorruptArtifact(name, "manifest", expected, f"this: {error}") from error
    names: set[str] = set()
    end = 0
    for blob in table:
        if blob.name in names:
            found_twice = f"two named {_short(blob.name)}"
            raise CorruptArtifact(name, "manifest", "blobs with different names", found_twice)
        if blob.offset != (offset := _aligned(end)):
            expected = f"blob {_short(blob.name)} at offset {offset}"
            raise CorruptArtifact(name, "manifest", expected, f"{blob.offset}")
        names.add(blob.name)
        end = offset + blob.size
    if header.area + end != header.size:
        expected = f"{header.area + end} bytes, as the table of blobs adds up to"
        raise CorruptArtifact(name, "size", expected, f"{header.size}")
    return manifest, table


def _container(
    name: str, header: _Header, manifest: bytes, table: list[Row], area: memoryview
) -> Container:
    blobs = {blob.name: _verified(name, blob, area) for blob in table}
    return Container(name, manifest, blobs, header.signed, header.public_key, header.signature)


def _verified(name: str, blob: Row, area: memoryview) -> memoryview:
    end = blob.offset + blob.size
    data = area[blob.offset : end]
    found = hashlib.sha256(data).hexdigest()
    if found != blob.sha256:
        expected = f"SHA-256 {_short(blob.sha256)}"
        raise CorruptArtifact(name, f"blob {_short(blob.name)}", expected, found)
    if any(area[end : _aligned(end)]):
        part = f"blob {_short(blob.name)}"
        raise CorruptArtifact(name, part, "zeros after it", "other bytes")
    return data


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _short(text: str) -> str:
    """`text` as it may stand in a message, whoever wrote it: short, and on one line."""
    cut = text if len(text) <= 80 else f"{text[:77]}..."
    return cut if cut.isprintable() else ascii(cut)[1:-1]
