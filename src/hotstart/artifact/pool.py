"""Write a file with several targets: what they have in common is in it once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hotstart.artifact.blobs import place_blobs
from hotstart.artifact.header import HEADER_BYTES, SEVERAL, Sign, aligned, make_header
from hotstart.artifact.target_index import Index, Target

_SHARED_BYTES = 512
"""Parts that have fewer bytes are not looked for in other targets."""


class TargetProgram(NamedTuple):
    """Contents to write for one target.

    Attributes:
        target: its name.
        instructions: the instruction set extensions that its code may use.
        manifest: as `file_parts` takes it.
        blobs: likewise.
    """

    target: str
    instructions: Sequence[str]
    manifest: Mapping[str, Any]
    blobs: Mapping[str, bytes | memoryview]


def parts_of_several(programs: Sequence[TargetProgram], sign: Sign | None = None) -> list[bytes]:
    """The parts of a file with several targets, in order. The same arguments give the same bytes.

    Args:
        programs: for each target what its file would have; the best first.
        sign: as `file_parts` takes it.

    Raises:
        ArtifactError: as `file_parts`.
    """
    named = [{name: bytes(blob) for name, blob in each.blobs.items()} for each in programs]
    shared = {n for n, blob in named[0].items() if all(o.get(n) == blob for o in named)}
    pool = Pool()
    targets: list[Target] = []
    for program, blobs in zip(programs, named, strict=True):
        # What all have comes first, so that each target is read in few ranges.
        table, placed = place_blobs(dict(sorted(blobs.items(), key=lambda b: b[0] not in shared)))
        manifest = {**program.manifest, "blobs": msgspec.to_builtins(table)}
        parts = list(text_parts(msgspec.to_builtins(manifest)))
        text = b"".join(parts)
        gap = bytes(aligned(HEADER_BYTES + len(text)) - HEADER_BYTES - len(text))
        ranges = pool.add([*parts, gap, *placed])
        digest = hashlib.sha256(text).hexdigest()
        allowed = tuple(program.instructions)
        targets.append(Target(program.target, allowed, len(text), digest, ranges))
    index = msgspec.json.encode(Index(tuple(targets)))
    size = HEADER_BYTES + len(index) + sum(map(len, pool.parts))
    return [*make_header(SEVERAL, size, index, sign), index, *pool.parts]


class Pool:
    """Bytes of several targets, equal parts once.

    Attributes:
        parts: the bytes so far, in order.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._places: dict[int, bytes] = {}  # by offset
        self._offsets: dict[bytes, int] = {}  # by digest
        self._size = 0

    def add(self, parts: Iterable[bytes]) -> tuple[tuple[int, int], ...]:
        """Add what the pool does not have; return the ranges that the parts are in, in order."""
        ranges: list[tuple[int, int]] = []
        for part in filter(None, parts):
            end = sum(ranges[-1]) if ranges else 0
            # Where it goes on as it did in another target, the range goes on, too.
            at = end if ranges and self._places.get(end) == part else self._place(part)
            if ranges and at == end:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + len(part))
            else:
                ranges.append((at, len(part)))
        return tuple(ranges)

    def _place(self, part: bytes) -> int:
        """Find a part, or append it; a small one is not worth a range of its own."""
        digest = hashlib.sha256(part).digest()
        if len(part) >= _SHARED_BYTES and digest in self._offsets:
            return self._offsets[digest]
        at = self._offsets[digest] = self._size
        self._places[at] = part
        self.parts.append(part)
        self._size += len(part)
        return at


def text_parts(value: Any, before: bytes = b"") -> Iterator[bytes]:
    """Encode dicts and lists as JSON, in parts that those of another target may have, too.

    Args:
        value: what to encode.
        before: what comes before it, in the same part.
    """
    text = msgspec.json.encode(value)
    if len(text) < _SHARED_BYTES or not isinstance(value, dict | list):
        yield before + text
        return
    opening, closing = (b"{", b"}") if isinstance(value, dict) else (b"[", b"]")
    before += opening
    for each in value:
        if isinstance(value, dict):
            yield from text_parts(value[each], before + msgspec.json.encode(each) + b":")
        else:
            yield from text_parts(each, before)
        before = b","
    yield closing
