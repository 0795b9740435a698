"""Containers for tests: packed, forged and damaged."""

from __future__ import annotations

import hashlib
import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotstart.artifact.container import Container, file_parts, read
from hotstart.errors import CorruptArtifact

# Written out again, so that a change of the layout cannot go unnoticed.
HEADER = struct.Struct("<8sIIQQ32s32s64s")
MANIFEST = {"made_by": "a test", "nested": {"z": [1, 2.5, None], "a": "é"}}
BLOBS = {"code": b"\x7fELF" + b"x" * 96, "empty": b"", "data": bytes(range(256)), "odd": b"abc"}


def packed(
    manifest: dict[str, Any] = MANIFEST, blobs: dict[str, bytes] = BLOBS, **more: Any
) -> bytes:
    return b"".join(file_parts(manifest, blobs, **more))


def fake_sign(signed: bytes) -> tuple[bytes, bytes]:
    key = b"k" * 32
    return key, hashlib.sha512(key + signed).digest()


def fake_trust(signed: bytes, key: bytes | None, signature: bytes | None) -> str | None:
    if key is None or signature is None:
        return "no signature"
    if key != b"k" * 32:
        return "an unknown key"
    return None if fake_sign(signed) == (key, signature) else "a signature that does not fit"


def forged(manifest: bytes | str | object, area: bytes = b"", **header: Any) -> bytes:
    """A file whose header fits a manifest that `file_parts` would never write."""
    if not isinstance(manifest, bytes):
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        manifest = text.encode()
    padding = bytes(-(HEADER.size + len(manifest)) % 64)
    fields = {
        "magic": b"HOTSTART",
        "format": 1,
        "reserved": 0,
        "size": HEADER.size + len(manifest) + len(padding) + len(area),
        "manifest_size": len(manifest),
        "digest": hashlib.sha256(manifest).digest(),
        "key": bytes(32),
        "signature": bytes(64),
    }
    return HEADER.pack(*(fields | header).values()) + manifest + padding + area


def entry(name: str, offset: int, data: bytes, **other: Any) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {"name": name, "offset": offset, "size": len(data), "sha256": digest} | other


def flipped(data: bytes, position: int, bit: int = 0) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def contents(found: Container) -> tuple[bytes, dict[str, bytes]]:
    return found.manifest, {name: bytes(blob) for name, blob in found.blobs.items()}


def layout(data: bytes) -> tuple[int, int, list[tuple[str, int, int]]]:
    """Ends of the manifest and of its padding; name, start and end of every blob."""
    size = HEADER.unpack_from(data)[4]
    manifest_end = HEADER.size + size
    start = manifest_end + -manifest_end % 64
    table = json.loads(data[HEADER.size : manifest_end])["blobs"]
    places = [(b["name"], start + b["offset"], start + b["offset"] + b["size"]) for b in table]
    return manifest_end, start, places


Hot = Callable[[bytes], Path]


def refused(path: Path) -> CorruptArtifact:
    """The error of a damaged file, which took little time and memory."""
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(CorruptArtifact) as raised:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 5
    assert peak < 4 << 20
    assert len(str(raised.value)) < 2000
    return raised.value
