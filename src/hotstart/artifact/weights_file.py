"""The file of prepared weights as bytes: how it is laid out, and what is checked of it.

    header      64 bytes, little-endian, without gaps:
                  8  magic, b"HOTWEIGH"
                  4  format
                  4  reserved, zero
                  8  size of the file, in bytes
                  8  size of the table, in bytes
                 32  SHA-256 of the table
    table       JSON in UTF-8, the record `Table`
    memory      begins at a multiple of 4096, and so does the end of the file; what the tensors are,
                byte by byte, in stretches that the table lists, with zeros between them

It is made to be mapped: a tensor is a place in the memory, and nothing is decoded. The table is
checked by its SHA-256 whenever a file is opened. The memory has two digests: one of the sums of its
pages, which takes as long as reading it and is compared in every load, and a SHA-256, ten times as
slow, for `hotstart verify`. Nothing here imports torch.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from hotstart.artifact.disk import OpenFile
from hotstart.errors import CorruptArtifact, IncompatibleArtifact

MAGIC = b"HOTWEIGH"
FORMAT = 1
PAGE = 4096

WRITE_AGAIN = (
    "Write it again with program.save_weights(), by a program that was loaded here with the "
    "original weights; or pass both, weights=[this file, the original]."
)
"""Advice of errors about weights that do not fit."""

_HEADER = struct.Struct("<8sIIQQ32s")
_ALIGNMENT = 64
_READ_AT_ONCE = 1 << 24

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of the memory that tensors lie in.

    Attributes:
        offset: bytes from the start of the memory.
        size: bytes.
    """

    offset: _Count
    size: _Count


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """One tensor.

    Attributes:
        dtype: its name, such as `float32`.
        shape: its sizes.
        stride: its strides; empty where it is packed for oneDNN.
        stretch: the number of the stretch it lies in; None for a weight of which only what was
            packed of it is here.
        offset: bytes from the start of that stretch.
        layout: the number of its layout, if it is packed for oneDNN.
    """

    dtype: str
    shape: tuple[_Count, ...]
    stride: tuple[_Count, ...]
    stretch: _Count | None = None
    offset: _Count = 0
    layout: _Count | None = None


class StoredPreparation(msgspec.Struct, frozen=True, array_like=True):
    """The results of one preparation.

    Attributes:
        preparation: the name of its code.
        weights: the tensors that it took, by number.
        results: the tensors that it made, by number; None for one that a unit does without.
        bytes: memory that these take besides the weights'.
    """

    preparation: str
    weights: tuple[_Count, ...]
    results: tuple[_Count | None, ...]
    bytes: _Count


class Table(msgspec.Struct, frozen=True):
    """Header and entries of a file of prepared weights, without its memory.

    Attributes:
        fingerprint: named parts of the process that prepared the weights.
        units: for each unit of the program, its key and a digest of its preparations.
        specs: digest of the program's table of weights.
        memory: bytes of the memory.
        sums: SHA-256 of the sums of its pages: of each page the sum of its 64-bit little-endian
            words, modulo 2**64, in 8 bytes.
        sha256: SHA-256 of the memory.
        stretches: where tensors lie.
        layouts: of tensors that are packed for oneDNN, as it describes them.
        tensors: all of them.
        weights: tensors of the program's table of weights, by name, each by number.
        made: what preparations made.
    """

    fingerprint: dict[str, Any]
    units: tuple[tuple[str, str], ...]
    specs: str
    memory: _Count
    sums: str
    sha256: str
    stretches: tuple[Stretch, ...]
    layouts: tuple[bytes, ...]
    tensors: tuple[Stored, ...]
    weights: dict[str, _Count]
    made: tuple[StoredPreparation, ...]


class Opened(msgspec.Struct, frozen=True):
    """The start of a file of prepared weights.

    Attributes:
        table: what it says; its SHA-256 was compared.
        begin: where the memory begins, in bytes from the start of the file.
    """

    table: Table
    begin: int


def is_one(start: bytes) -> bool:
    """Tell whether a file that begins so holds prepared weights."""
    return start.startswith(MAGIC)


def read(source: OpenFile) -> Opened:
    """Read and check header and table of a file.

    Raises:
        CorruptArtifact: they, or the size of the file, are not what was written.
        IncompatibleArtifact: the file has another format.
        ArtifactError: it cannot be read.
    """
    name, size = source.name, source.size
    header = bytes(source.take(min(_HEADER.size, size)))
    if not is_one(header):
        found = f"{header[: len(MAGIC)]!r}" if header else "an empty file"
        raise _corrupt(name, "header", f"{MAGIC!r}", found)
    if len(header) < _HEADER.size:
        raise _corrupt(name, "header", f"{_HEADER.size} bytes", f"{len(header)}")
    _, written, reserved, whole, table_bytes, digest = _HEADER.unpack(header)
    if written != FORMAT:
        raise IncompatibleArtifact(name, [("format", str(FORMAT), str(written))], WRITE_AGAIN)
    if reserved:
        raise _corrupt(name, "header", "zero in the reserved field", f"{reserved}")
    if whole != size:
        raise _corrupt(name, "size", f"{whole} bytes", f"{size}")
    begin = _up(_HEADER.size + table_bytes, PAGE)
    if begin > size:
        raise _corrupt(name, "size", f"at least {begin} bytes", f"{size}")
    padded = bytes(source.take(begin - _HEADER.size))
    text = padded[:table_bytes]
    if hashlib.sha256(text).digest() != digest or any(padded[table_bytes:]):
        raise _corrupt(name, "table", f"SHA-256 {digest.hex()}", hashlib.sha256(text).hexdigest())
    try:
        table = msgspec.json.decode(text, type=Table)
        _require_whole(table)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _corrupt(name, "table", "what hotstart writes", f"this: {error}") from error
    if begin + table.memory != size:
        raise _corrupt(name, "size", f"{begin + table.memory} bytes", f"{size}")
    return Opened(table, begin)


def head(table: Table) -> bytes:
    """Write all of a file that comes before its memory."""
    text = msgspec.json.encode(table)
    begin = _up(_HEADER.size + len(text), PAGE)
    digest = hashlib.sha256(text).digest()
    header = _HEADER.pack(MAGIC, FORMAT, 0, begin + table.memory, len(text), digest)
    return header + text + bytes(begin - _HEADER.size - len(text))


def placed(sizes: Iterable[int]) -> tuple[list[Stretch], int]:
    """Lay out stretches of some sizes one after the other.

    Returns:
        The stretches, and the bytes of the memory that they are in. Those of a page or more begin
        at a page.
    """
    end = 0
    found: list[Stretch] = []
    for size in sizes:
        begin = _up(end, PAGE if size >= PAGE else _ALIGNMENT)
        found.append(Stretch(begin, size))
        end = begin + size
    return found, _up(end, PAGE)


def verify(source: OpenFile) -> int:
    """Check every byte of a file by SHA-256; return how many there are.

    Raises:
        ArtifactError: as `read`.
    """
    table = read(source).table
    found = hashlib.sha256()
    left = table.memory
    while left:
        part = source.take(min(left, _READ_AT_ONCE))
        found.update(part)
        left -= len(part)
    if found.hexdigest() != table.sha256:
        raise damaged(source.name, table.sha256, found.hexdigest())
    return source.size


def damaged(name: str, expected: str, found: str) -> CorruptArtifact:
    """Make the error for a memory that has another digest."""
    return _corrupt(name, "memory", f"SHA-256 {expected}", found)


def _corrupt(name: str, part: str, expected: str, found: str) -> CorruptArtifact:
    about = "is damaged, or holds no prepared weights; copy it again, or save_weights again"
    return CorruptArtifact(name, part, expected, found, about)


def _require_whole(table: Table) -> None:
    """Check that a table holds together.

    Raises:
        ValueError: a number in it is of nothing, or a place is not in the memory.
    """
    end = 0
    for stretch in table.stretches:
        if stretch.offset < end:
            raise ValueError(f"stretches that overlap at byte {stretch.offset}")
        end = stretch.offset + stretch.size
    if end > table.memory or table.memory % PAGE:
        raise ValueError(f"a memory of {table.memory} bytes for stretches of {end}")
    numbers = [*table.weights.values()]
    for made in table.made:
        numbers += made.weights
        numbers += [number for number in made.results if number is not None]
    if numbers and max(numbers) >= len(table.tensors):
        raise ValueError(f"the tensor {max(numbers)} of {len(table.tensors)}")
    for stored in table.tensors:
        if stored.stretch is not None and stored.stretch >= len(table.stretches):
            raise ValueError(f"the stretch {stored.stretch} of {len(table.stretches)}")
        if stored.layout is not None and stored.layout >= len(table.layouts):
            raise ValueError(f"the layout {stored.layout} of {len(table.layouts)}")
        if stored.layout is not None and stored.stretch is None:
            raise ValueError("a packed tensor that lies nowhere")
        if stored.layout is None and len(stored.shape) != len(stored.stride):
            raise ValueError(f"the shape {stored.shape} with strides {stored.stride}")


def _up(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
