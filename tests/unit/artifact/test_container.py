"""A container gives back what was packed into it, and refuses what was damaged."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotstart.artifact.container import pack, read, read_manifest
from hotstart.artifact.disk import write
from hotstart.artifact.header import FORMAT, SEVERAL, SIGNED_BYTES
from hotstart.errors import ArtifactError, CorruptArtifact, IncompatibleArtifact, UntrustedArtifact
from tests.unit.artifact.containers import (
    BLOBS,
    HEADER,
    MANIFEST,
    Hot,
    contents,
    entry,
    fake_sign,
    fake_trust,
    flipped,
    forged,
    layout,
    packed,
    refused,
)

# --- what is written is what is read --------------------------------------------------------------


def test_a_file_gives_back_what_was_packed(hot: Hot) -> None:
    path = hot(packed())
    found = read(path)
    assert found.file == str(path)
    assert json.loads(found.manifest).items() >= MANIFEST.items()
    assert contents(found)[1] == BLOBS
    assert list(found.blobs) == list(BLOBS)


def test_the_manifest_is_read_without_the_blobs(hot: Hot) -> None:
    data = packed()
    last = flipped(data, len(data) - 1)
    assert read_manifest(hot(last)) == read(hot(data)).manifest


@given(
    st.dictionaries(st.text(min_size=1), st.binary(max_size=200), max_size=5),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.text(), max_size=3),
    st.booleans(),
)
def test_any_blobs_and_manifest_make_the_round_trip(
    scratch: Path, blobs: dict[str, bytes], manifest: dict[str, Any], signed: bool
) -> None:
    write(scratch, pack(manifest, blobs, fake_sign if signed else None))
    found = read(scratch, fake_trust if signed else None)
    assert contents(found) == (read_manifest(scratch), blobs)
    decoded = json.loads(found.manifest)
    assert {**manifest, "blobs": decoded["blobs"]} == decoded


@pytest.mark.parametrize(
    "blobs",
    [{}, {"a": b""}, {"a": b"", "b": b""}, {"a": b"x" * 64, "b": b""}, {"a": b"", "b": b"x" * 65}],
)
def test_few_and_empty_blobs(hot: Hot, blobs: dict[str, bytes]) -> None:
    assert contents(read(hot(packed({}, blobs))))[1] == blobs


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128])
@pytest.mark.parametrize("extra", range(0, 64, 7))
def test_sizes_around_the_alignment(hot: Hot, size: int, extra: int) -> None:
    blobs = {"a": b"x" * size, "b": b"y"}
    assert contents(read(hot(packed({"pad": "p" * extra}, blobs))))[1] == blobs


def test_the_layout_is_this() -> None:
    listed = [entry("one", 0, b"abc"), entry("two", 64, b"d")]
    text = json.dumps({"a": 1, "blobs": listed}, separators=(",", ":"))
    assert packed({"a": 1}, {"one": b"abc", "two": b"d"}) == forged(text, b"abc" + bytes(61) + b"d")


def test_every_blob_starts_at_a_multiple_of_64() -> None:
    _, start, places = layout(packed())
    assert not [place for place in [start, *(begin for _, begin, _ in places)] if place % 64]


def test_the_same_input_gives_the_same_bytes() -> None:
    assert packed() == packed()


def test_packing_a_manifest_again_gives_the_same_bytes(hot: Hot) -> None:
    data = packed()
    found = read(hot(data))
    assert b"".join(pack(json.loads(found.manifest), found.blobs)) == data


def test_keys_stay_in_the_order_given() -> None:
    assert packed({"a": 1, "b": 2}, {}) != packed({"b": 2, "a": 1}, {})


def test_memoryviews_of_other_items_are_packed_as_bytes(hot: Hot) -> None:
    words = memoryview(b"abcdefgh").cast("I")
    assert contents(read(hot(b"".join(pack({}, {"words": words})))))[1] == {"words": b"abcdefgh"}


def test_blobs_cannot_be_changed(hot: Hot) -> None:
    assert all(blob.readonly for blob in read(hot(packed())).blobs.values())


def test_a_blob_without_a_name_is_not_packed() -> None:
    with pytest.raises(ArtifactError, match="Name every blob"):
        pack({}, {"": b"x"})


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, hotstart.artifact.container; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# --- signatures -----------------------------------------------------------------------------------


def test_an_unsigned_file_has_no_key(hot: Hot) -> None:
    found = read(hot(packed()))
    assert (found.public_key, found.signature) == (None, None)


def test_a_signed_file_has_what_the_signer_returned(hot: Hot) -> None:
    data = packed(sign=fake_sign)
    found = read(hot(data))
    assert found.signed == data[:SIGNED_BYTES]
    assert (found.public_key, found.signature) == fake_sign(found.signed)


def test_a_signature_changes_nothing_but_its_place_in_the_header() -> None:
    plain, signed = packed(), packed(sign=fake_sign)
    assert plain[:SIGNED_BYTES] == signed[:SIGNED_BYTES]
    assert plain[HEADER.size :] == signed[HEADER.size :]


@pytest.mark.parametrize(
    "returned",
    [
        (b"k" * 31, b"s" * 64),
        (b"k" * 32, b"s" * 65),
        (b"", b""),
        (bytes(32), b"s" * 64),
        (b"k" * 32, bytes(64)),
    ],
)
def test_a_signer_that_returns_something_else_is_refused(returned: tuple[bytes, bytes]) -> None:
    with pytest.raises(ArtifactError, match="expected a key of 32 bytes"):
        pack({}, {}, lambda signed: returned)


def test_trust_sees_the_signed_bytes_the_key_and_the_signature(hot: Hot) -> None:
    seen: list[Any] = []
    data = packed(sign=fake_sign)
    read(hot(data), lambda *header: seen.append(header))
    assert seen == [(data[:64], data[64:96], data[96:160])]


def test_trust_sees_none_for_an_unsigned_file(hot: Hot) -> None:
    seen: list[Any] = []
    data = packed()
    read(hot(data), lambda *header: seen.append(header))
    assert seen == [(data[:64], None, None)]


def test_what_trust_found_is_in_the_error(hot: Hot) -> None:
    path = hot(packed())
    with pytest.raises(UntrustedArtifact, match="found no signature") as raised:
        read(path, fake_trust)
    assert raised.value.file == str(path)


def test_an_empty_text_is_a_refusal_too(hot: Hot) -> None:
    with pytest.raises(UntrustedArtifact):
        read(hot(packed()), lambda *_: "")


def test_trust_is_asked_before_the_manifest_is_looked_at(hot: Hot) -> None:
    data = flipped(packed(), HEADER.size)
    with pytest.raises(UntrustedArtifact):
        read(hot(data), lambda *_: "nobody I know")


@pytest.mark.parametrize("damage", [slice(1, None), slice(-1)])
def test_trust_is_not_asked_about_a_damaged_header_or_size(hot: Hot, damage: slice) -> None:
    with pytest.raises(CorruptArtifact):
        read(hot(packed()[damage]), lambda *_: pytest.fail("was asked"))


def test_every_header_byte_of_a_signed_file_counts(hot: Hot) -> None:
    data = packed(sign=fake_sign)
    assert read(hot(data), fake_trust).public_key
    for position in range(HEADER.size):
        path = hot(flipped(data, position))
        with pytest.raises(ArtifactError):
            read(path, fake_trust)


# --- damage ---------------------------------------------------------------------------------------


def test_every_header_byte_of_an_unsigned_file_counts(hot: Hot) -> None:
    data = packed()
    for position in range(HEADER.size):
        for bit in (0, 7):
            path = hot(flipped(data, position, bit))
            for reader in (read, read_manifest):
                with pytest.raises(ArtifactError):
                    reader(path)


def test_every_byte_after_the_header_counts(hot: Hot) -> None:
    data = packed()
    manifest_end, start, places = layout(data)
    # Padding belongs to what comes before it.
    ends = [(start, "manifest"), *((begin, "") for _, begin, _ in places[1:]), (len(data), "")]
    names = ["manifest", *(f"blob {name}" for name, _, _ in places)]
    assert manifest_end < start
    assert any(end % 64 for _, _, end in places[:-1])
    for position in range(HEADER.size, len(data)):
        part = names[sum(position >= end for end, _ in ends)]
        with pytest.raises(CorruptArtifact) as raised:
            read(hot(flipped(data, position, position % 8)))
        assert raised.value.part == part


def test_a_file_cut_off_at_a_boundary_is_refused(hot: Hot) -> None:
    data = packed()
    manifest_end, start, places = layout(data)
    header_fields = [8, 12, 16, 24, 32, 64, 96, 160]
    ends = [*header_fields, manifest_end, start, *(p for _, a, b in places for p in (a, b))]
    for end in {near for e in ends for near in (e - 1, e, e + 1) if near < len(data)}:
        assert refused(hot(data[:end])).part in ("header", "size")


@given(st.data())
def test_a_file_cut_off_anywhere_is_refused(scratch: Path, data: st.DataObject) -> None:
    whole = packed()
    scratch.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    for reader in (read, read_manifest):
        with pytest.raises(CorruptArtifact):
            reader(scratch)


@pytest.mark.parametrize("more", [b"\0", bytes(64), b"more"])
def test_bytes_after_the_end_are_refused(hot: Hot, more: bytes) -> None:
    assert refused(hot(packed() + more)).part == "size"


def test_hidden_bytes_after_the_last_blob_are_refused(hot: Hot) -> None:
    error = refused(hot(forged({"blobs": [entry("a", 0, b"abc")]}, b"abc" + b"hidden")))
    assert error.part == "size"


def test_an_empty_file_is_no_artifact(hot: Hot) -> None:
    error = refused(hot(b""))
    assert error.part == "header"
    assert "found an empty file" in str(error)


@pytest.mark.parametrize("data", [b"\x7fELF", b"hotstart" + bytes(152), b"PK\x03\x04" * 99, b"H"])
def test_another_magic_is_no_artifact(hot: Hot, data: bytes) -> None:
    error = refused(hot(data))
    assert error.part == "header"
    assert f"found {data[:8]!r}" in str(error)


@pytest.mark.parametrize("other", [0, 3, 2**32 - 1])
def test_another_format_is_incompatible(hot: Hot, other: int) -> None:
    path = hot(forged({"blobs": []}, format=other))
    with pytest.raises(IncompatibleArtifact) as raised:
        read(path)
    assert raised.value.differences == (("format", f"{FORMAT} or {SEVERAL}", str(other)),)


def test_the_format_is_looked_at_before_the_rest_of_the_header(hot: Hot) -> None:
    path = hot(b"HOTSTART" + struct.pack("<I", 3) + b"a shorter header")
    with pytest.raises(IncompatibleArtifact):
        read_manifest(path)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ({"reserved": 1}, "header"),
        ({"key": b"k" * 32}, "header"),
        ({"signature": b"s" * 64}, "header"),
        ({"size": 0}, "size"),
        ({"size": 10 << 30}, "size"),
        ({"size": 2**64 - 1}, "size"),
        ({"manifest_size": 10 << 30}, "size"),
        ({"manifest_size": 2**64 - 1}, "size"),
        ({"manifest_size": 0}, "manifest"),
        ({"manifest_size": 1}, "manifest"),
        ({"digest": bytes(32)}, "manifest"),
    ],
)
def test_a_header_that_claims_too_much_is_refused(
    hot: Hot, header: dict[str, Any], part: str
) -> None:
    assert refused(hot(forged({"blobs": []}, **header))).part == part
