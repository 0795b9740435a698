"""Read a file in the format of safetensors: its header checked, its tensors mapped.

The format: 8 bytes with the size of the header, little-endian; the header, in JSON, which says of
every tensor its dtype, shape, and where it begins and ends behind the header; then the tensors,
without gaps. See https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from hotstart.dtypes import dtype_of
from hotstart.errors import ArtifactError, CorruptArtifact

DTYPES: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32",
    "U16": "uint16", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""Dtypes of torch by the names that the format has for them. It has more, of less than a byte."""

_LARGEST_HEADER = 100_000_000
"""Bytes of the largest header that the format allows for."""


class _Entry(msgspec.Struct, frozen=True):
    """The place of a tensor, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class MappedFile:
    """A checkpoint in a file, mapped copy-on-write: what is written to a tensor stays here.

    Args:
        file: its path.

    Raises:
        ArtifactError: it cannot be read.
        CorruptArtifact: it is not in the format, or says of itself what is not so.
    """

    shared = False
    whole = False

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.where = str(file)
        try:
            with Path(file).open("rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                if size < 8:
                    raise _corrupt(self.where, "size", "8 bytes or more", str(size))
                self._memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise ArtifactError(
                f"{file}: expected a file of weights to read, found: {error}. Give the path of a "
                "checkpoint."
            ) from error
        self._entries = _entries(self.where, self._memory)
        self._made: dict[str, torch.Tensor] = {}

    def names(self) -> Collection[str]:
        """List the names of all tensors."""
        return self._entries.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name].shape

    def tensor(self, name: str) -> torch.Tensor:
        """Map a tensor; nothing of it is read.

        Raises:
            ArtifactError: torch has no such dtype.
        """
        if name not in self._made:
            self._made[name] = self._mapped(name, self._entries[name])
        return self._made[name]

    def _mapped(self, name: str, entry: _Entry) -> torch.Tensor:
        if entry.dtype not in DTYPES:
            raise ArtifactError(
                f"{self.where}: {name}: expected a dtype of torch, found {entry.dtype}. Convert "
                "the checkpoint to the dtype that the program was built for."
            )
        dtype = dtype_of(DTYPES[entry.dtype])
        if entry.begin == entry.end:
            return torch.empty(entry.shape, dtype=dtype, device="cpu")
        count = (entry.end - entry.begin) // dtype.itemsize
        if entry.begin % dtype.itemsize == 0:  # the mapping itself begins at a page
            flat = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=entry.begin)
        else:
            # C++ may not read numbers that lie across their alignment. The format allows for them
            # where tensors of several dtypes follow each other.
            flat = torch.frombuffer(bytearray(self._memory[entry.begin : entry.end]), dtype=dtype)
        return flat.view(entry.shape)

    def taken_apart(self, name: str) -> torch.Tensor | None:
        """Return nothing: a file of this kind has no tensors of subclasses."""
        return None

    def same(self, name: str, other: str) -> bool:
        """Tell whether two names are of one place: never, since tensors do not overlap."""
        return name == other

    def discard(self, name: str) -> None:
        """Give the pages that only this tensor lies in back to the system."""
        self._made.pop(name, None)
        advice = getattr(mmap, "MADV_DONTNEED", None)
        begin = -(-self._entries[name].begin // mmap.PAGESIZE) * mmap.PAGESIZE
        end = self._entries[name].end // mmap.PAGESIZE * mmap.PAGESIZE
        if advice is not None and end > begin:
            self._memory.madvise(advice, begin, end - begin)


def _entries(file: str, memory: mmap.mmap) -> dict[str, _Entry]:
    """Read the header of a file, and check all that it says.

    Raises:
        CorruptArtifact: it is not in the format, or something does not hold.
    """
    size = int.from_bytes(memory[:8], "little")
    start = 8 + size
    if size > _LARGEST_HEADER or start > len(memory):
        most = min(_LARGEST_HEADER, len(memory) - 8)
        raise _corrupt(file, "header", f"at most {most} bytes", f"{size}")
    try:
        header = json.loads(memory[8:start].decode(), object_pairs_hook=_unique)
        header.pop("__metadata__", None)
        found = {name: _entry(name, said, start) for name, said in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise _corrupt(file, "header", "that of safetensors", reason) from error
    _require_dense(file, found, start, len(memory))
    return found


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no name comes twice.

    Raises:
        ValueError: one does.
    """
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"the name {name!r} twice")
        made[name] = value
    return made


def _entry(name: str, said: Any, start: int) -> _Entry:
    """Check what a header says of one tensor by itself.

    Raises:
        ValueError: it does not hold together.
        TypeError, KeyError, AttributeError: something is missing, or of another type.
    """
    dtype, shape, (begin, end) = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise TypeError(f"{name!r} with dtype {dtype!r} and shape {shape!r}")
    for number in (*shape, begin, end):
        if type(number) is not int or not 0 <= number < 2**63:
            raise ValueError(f"{name!r} with the number {number!r}")
    if math.prod(max(size, 1) for size in shape) >= 2**63:
        raise ValueError(f"{name!r} with the shape {shape!r}")
    if dtype in DTYPES:
        expected = math.prod(shape) * dtype_of(DTYPES[dtype]).itemsize
        if end - begin != expected:
            raise ValueError(f"{name!r} of {expected} bytes at {begin} to {end}")
    return _Entry(dtype, tuple(shape), start + begin, start + end)


def _require_dense(file: str, entries: Mapping[str, _Entry], start: int, end: int) -> None:
    """Check that tensors follow each other from the header to the end of the file.

    Raises:
        CorruptArtifact: they overlap, leave gaps or go beyond the end.
    """
    at = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at or entry.end < at:
            found = f"{entry.begin} to {entry.end}"
            raise _corrupt(file, f"tensor {name!r:.80}", f"it to begin at byte {at}", found)
        at = entry.end
    if at != end:
        raise _corrupt(file, "size", f"{at} bytes, as the header says", str(end))


def _corrupt(file: str, part: str, expected: str, found: str) -> CorruptArtifact:
    what = "is damaged, or is not a checkpoint in the format of safetensors; copy it again"
    return CorruptArtifact(file, part, expected, found, what)
