"""The `.hot` file as bytes: what is in it, and whether it is what was written.

    header      160 bytes, little-endian, without gaps:
                  8  magic, b"HOTSTART"
                  4  format: 1, or 2 for a file with several targets
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

A file of format 2 has an index in the place of the manifest, and after it, without a gap, a pool;
see `target_index`. What it has for a target is read as the file of that target alone would be.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from hotstart.artifact import target_index
from hotstart.artifact.blobs import Row, place_blobs
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.header import (
    FORMAT,
    HEADER_BYTES,
    SEVERAL,
    Header,
    Sign,
    aligned,
    make_header,
    read_header,
)
from hotstart.artifact.target_index import Choose, Target, first
from hotstart.artifact.trust import Trust, require_trusted
from hotstart.errors import CorruptArtifact
from hotstart.faults import path_of

_LISTED_BYTES = 1024
"""So much is read at once where only the manifest is wanted: all of it, in small files."""


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
        targets: those of a file with several, the best first; none of another.
        target: the one of them that was read.
    """

    file: str
    manifest: bytes
    blobs: dict[str, memoryview]
    signed: bytes
    public_key: bytes | None
    signature: bytes | None
    targets: tuple[Target, ...] = ()
    target: Target | None = None


def read(
    file: str | os.PathLike[str], trust: Trust | None = None, choose: Choose = first
) -> Container:
    """Read and verify a file through one descriptor: all of it, or all that one target has.

    Args:
        file: the file.
        trust: called with the signed bytes, the public key and the signature before anything but
            the header is read; returns None to go on, else a text that says what was found.
        choose: chooses the target of a file with several; nothing of the others is read.

    Raises:
        CorruptArtifact: the content is not what was written.
        IncompatibleArtifact: the file has another format.
        UntrustedArtifact: `trust` refused.
        ArtifactError: the file cannot be read.
    """
    with OpenFile(path_of("file", file)) as source:
        header = _trusted_header(source, trust)
        if header.format == SEVERAL:
            several = _Several(source.name, header, source.gather)
            return several.read(choose(several.targets))
        return _rest(source, header)


def read_all(file: str | os.PathLike[str], trust: Trust | None = None) -> Iterator[Container]:
    """Read and verify every byte of a file, one target after the other, through one descriptor.

    Raises:
        ArtifactError: as `read`.
    """
    with OpenFile(path_of("file", file)) as source:
        header = _trusted_header(source, trust)
        if header.format == SEVERAL:
            yield from _Several(source.name, header, source.gather).read_all()
        else:
            yield _rest(source, header)


def require_whole(file: str | os.PathLike[str], trust: Trust | None = None) -> None:
    """Verify every byte of a file.

    Raises:
        ArtifactError: as `read`.
    """
    for _ in read_all(file, trust):
        pass


def read_bytes(name: str, data: bytes, trust: Trust | None = None) -> list[Container]:
    """Verify what would be a whole file; what it has for each target.

    Args:
        name: where it is from, for messages.
        data: the bytes.
        trust: as `read` takes it.

    Raises:
        CorruptArtifact: they are not what was written.
        IncompatibleArtifact: they have another format.
        UntrustedArtifact: `trust` refused.
    """
    header = read_header(name, data[:HEADER_BYTES], len(data))
    require_trusted(name, header, trust)
    if header.format == SEVERAL:

        def gather(ranges: Iterable[tuple[int, int]]) -> memoryview:
            return memoryview(b"".join(data[at : at + size] for at, size in ranges))

        return list(_Several(name, header, gather).read_all())
    manifest, table = _manifest(name, header, data[HEADER_BYTES : header.area])
    return [_container(name, header, manifest, table, memoryview(data)[header.area :])]


def read_manifest(
    file: str | os.PathLike[str], choose: Choose = first, trust: Trust | None = None
) -> bytes:
    """Read and verify header, manifest and blob table, without reading the blobs.

    Args:
        file: the file.
        choose: chooses the target of a file with several.
        trust: as `read` takes it.

    Raises:
        CorruptArtifact: header, manifest or the file's size are not what was written.
        IncompatibleArtifact: the file has another format.
        UntrustedArtifact: `trust` refused.
        ArtifactError: the file cannot be read.
    """
    with OpenFile(path_of("file", file)) as source:
        start = source.start(_LISTED_BYTES)
        header = read_header(source.name, start[:HEADER_BYTES], source.size)
        require_trusted(source.name, header, trust)
        if header.format == SEVERAL:
            several = _Several(source.name, header, source.gather)
            return several.read_manifest(choose(several.targets))
        if header.area > len(start):
            start += source.take(header.area - len(start))
        return _manifest(source.name, header, start[HEADER_BYTES : header.area])[0]


def read_targets(file: str | os.PathLike[str]) -> tuple[Target, ...]:
    """Read and verify header and index; the targets of a file, none if it has but one.

    Raises:
        ArtifactError: as `read_manifest`.
    """
    with OpenFile(path_of("file", file)) as source:
        header = read_header(source.name, source.start(HEADER_BYTES), source.size)
        if header.format != SEVERAL:
            return ()
        return _Several(source.name, header, source.gather).targets


def pick(every: Sequence[Container], choose: Choose) -> Container:
    """Pick the contents of one target, given those of all that a file has."""
    targets = every[0].targets
    return next(each for each in every if not targets or each.target == choose(targets))


def read_key(file: str | os.PathLike[str]) -> bytes | None:
    """Read the public key in a file's header, and nothing else; None if the file is unsigned.

    Raises:
        ArtifactError: as `read_manifest`.
    """
    with OpenFile(path_of("file", file)) as source:
        return read_header(source.name, source.start(HEADER_BYTES), source.size).public_key


def file_parts(
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
    table, placed = place_blobs(blobs)
    text = msgspec.json.encode({**manifest, "blobs": table})
    start = aligned(HEADER_BYTES + len(text))
    size = start + sum(map(len, placed))
    gap = bytes(start - HEADER_BYTES - len(text))
    return [part for part in (*make_header(FORMAT, size, text, sign), text, gap, *placed) if part]


def _trusted_header(source: OpenFile, trust: Trust | None) -> Header:
    """Read the header, and ask whether its signature is trusted.

    Raises:
        UntrustedArtifact: it is not.
    """
    start = bytes(source.take(min(HEADER_BYTES, source.size)))
    header = read_header(source.name, start, source.size)
    require_trusted(source.name, header, trust)
    return header


def _rest(source: OpenFile, header: Header) -> Container:
    """Read what comes after the header of a file with one target."""
    padded = bytes(source.take(header.area - HEADER_BYTES))
    manifest, table = _manifest(source.name, header, padded)
    area = source.take(source.size - header.area)
    return _container(source.name, header, manifest, table, area)


class _Several:
    """A file with several targets, of which the index was read and verified.

    Args:
        name: the file.
        header: its header.
        gather: reads ranges of the file, by offset and size, into one memory.

    Attributes:
        targets: the targets, the best first.
    """

    def __init__(
        self,
        name: str,
        header: Header,
        gather: Callable[[Iterable[tuple[int, int]]], memoryview],
    ) -> None:
        self._name = name
        self._file = header
        self._gather = gather
        text = bytes(gather([(HEADER_BYTES, header.manifest_bytes)]))
        found = hashlib.sha256(text)
        if found.digest() != header.digest:
            expected = f"SHA-256 {header.digest.hex()}"
            raise CorruptArtifact(name, "index", expected, found.hexdigest())
        self.targets = target_index.decoded(name, text, header.size - header.area)

    def read(self, target: Target) -> Container:
        """Read and verify all that a target has."""
        header = self._header_of(target)
        data = self._gather(self._places(target.ranges))
        manifest, table = _manifest(self._name, header, bytes(data[: header.area - HEADER_BYTES]))
        area = data[header.area - HEADER_BYTES :]
        contents = _container(self._name, header, manifest, table, area)
        return msgspec.structs.replace(contents, targets=self.targets, target=target)

    def read_all(self) -> Iterator[Container]:
        """Read and verify every byte, one target after the other."""
        pool = self._file.size - self._file.area
        target_index.require_used(self._name, self.targets, pool)
        return map(self.read, self.targets)

    def read_manifest(self, target: Target) -> bytes:
        """Read and verify the manifest of a target."""
        header = self._header_of(target)
        start = target.start(header.area - HEADER_BYTES)
        return _manifest(self._name, header, bytes(self._gather(self._places(start))))[0]

    def _header_of(self, target: Target) -> Header:
        """The header of what a target has: of the file that it alone would be."""
        size = HEADER_BYTES + target.size
        area = aligned(HEADER_BYTES + target.manifest_bytes)
        try:
            digest = bytes.fromhex(target.sha256)
        except ValueError as error:
            raise CorruptArtifact(self._name, "index", "a digest", ascii(target.sha256)) from error
        if area > size:
            expected = f"at least {area} bytes of {target.target}"
            raise CorruptArtifact(self._name, "size", expected, f"{size}")
        return self._file._replace(
            size=size, manifest_bytes=target.manifest_bytes, digest=digest, area=area
        )

    def _places(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Locate ranges of the pool in the file."""
        return [(self._file.area + offset, size) for offset, size in ranges]


def _manifest(name: str, header: Header, padded: bytes) -> tuple[bytes, list[Row]]:
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
        if blob.offset != (offset := aligned(end)):
            expected = f"blob {_short(blob.name)} at offset {offset}"
            raise CorruptArtifact(name, "manifest", expected, f"{blob.offset}")
        names.add(blob.name)
        end = offset + blob.size
    if header.area + end != header.size:
        expected = f"{header.area + end} bytes, as the table of blobs adds up to"
        raise CorruptArtifact(name, "size", expected, f"{header.size}")
    return manifest, table


def _container(
    name: str, header: Header, manifest: bytes, table: list[Row], area: memoryview
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
    if any(area[end : aligned(end)]):
        part = f"blob {_short(blob.name)}"
        raise CorruptArtifact(name, part, "zeros after it", "other bytes")
    return data


def _short(text: str) -> str:
    """`text` as it may stand in a message, whoever wrote it: short, and on one line."""
    cut = text if len(text) <= 80 else f"{text[:77]}..."
    return cut if cut.isprintable() else ascii(cut)[1:-1]
