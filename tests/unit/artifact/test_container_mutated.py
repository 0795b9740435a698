"""Whatever the bytes of a file are, it is read as it was packed, or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotstart.artifact.container import read
from hotstart.artifact.header import FORMAT
from hotstart.errors import CorruptArtifact, HotstartError
from tests.unit.artifact.containers import (
    BLOBS,
    HEADER,
    contents,
    entry,
    fake_sign,
    flipped,
    forged,
    layout,
    packed,
)

Mutation = tuple[str, float, float, bytes]
FRACTIONS = st.floats(0, 1)
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "duplicate", "overwrite"]),
        FRACTIONS,
        FRACTIONS,
        st.binary(min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, mutations: list[Mutation]) -> bytes:
    for kind, first, second, other in mutations:
        start, end = sorted((int(first * len(data)), int(second * len(data))))
        match kind:
            case "flip" if start < len(data):
                data = flipped(data, start, other[0] % 8)
            case "insert":
                data = data[:start] + other + data[start:]
            case "delete":
                data = data[:start] + data[end:]
            case "duplicate":
                data = data[:end] + data[start:end] + data[end:]
            case "overwrite":
                data = data[:start] + other + data[start + len(other) :]
    return data


@pytest.mark.thorough
@given(MUTATIONS, st.booleans())
def test_a_mutated_file_is_the_same_or_refused(
    scratch: Path, mutations: list[Mutation], signed: bool
) -> None:
    data = packed(sign=fake_sign if signed else None)
    scratch.write_bytes(data)
    whole = contents(read(scratch))
    scratch.write_bytes(mutated(data, mutations))
    try:
        found = read(scratch)
    except HotstartError:
        return
    assert contents(found) == whole


@given(MUTATIONS)
def test_a_mutated_manifest_in_a_fitting_header_is_honest_or_refused(
    scratch: Path, mutations: list[Mutation]
) -> None:
    manifest_end, start, _ = layout(packed())
    text = mutated(packed()[HEADER.size : manifest_end], mutations)
    scratch.write_bytes(forged(text, packed()[start:]))
    try:
        found = read(scratch)
    except HotstartError:
        return
    assert found.manifest == text
    # Blobs without bytes may come and go: nothing of the file is in them.
    assert list(filter(None, contents(found)[1].values())) == list(filter(None, BLOBS.values()))


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(-64, 192), st.integers(-2, 130)), max_size=4
    ),
    st.integers(0, 260),
)
def test_a_table_is_read_only_if_the_blobs_tile_the_file(
    scratch: Path, rows: list[tuple[str, int, int]], size: int
) -> None:
    table = [entry(name, at, bytes(max(0, n)), size=n) for name, at, n in rows]
    scratch.write_bytes(forged({"blobs": table}, bytes(size)))
    end, tiles = 0, len({name for name, _, _ in rows}) == len(rows)
    for _, at, n in rows:
        tiles = tiles and n >= 0 and at == end + -end % 64
        end = at + n
    try:
        found = read(scratch)
    except CorruptArtifact:
        assert not (tiles and end == size)
        return
    assert tiles
    assert sum(map(len, found.blobs.values())) == sum(n for _, _, n in rows)
    assert end == size


@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_refused(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(b"HOTSTART" + struct.pack("<I", FORMAT) + data)
    with pytest.raises(CorruptArtifact):
        read(scratch)
