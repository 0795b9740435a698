from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotstart.artifact.container import (
    FORMAT,
    SIGNED_BYTES,
    Container,
    pack,
    read,
    read_manifest,
)
from hotstart.artifact.disk import write
from hotstart.errors import (
    ArtifactError,
    CorruptArtifact,
    HotstartError,
    IncompatibleArtifact,
    OptionsError,
    UntrustedArtifact,
)

# Written out again, so that a change of the layout cannot go unnoticed.
HEADER = struct.Struct("<8sIIQQ32s32s64s")
MANIFEST = {"made_by": "a test", "nested": {"z": [1, 2.5, None], "a": "é"}}
BLOBS = {"code": b"\x7fELF" + b"x" * 96, "empty": b"", "data": bytes(range(256)), "odd": b"abc"}


def packed(
    manifest: dict[str, Any] = MANIFEST, blobs: dict[str, bytes] = BLOBS, **more: Any
) -> bytes:
    return b"".join(pack(manifest, blobs, **more))


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
    """A file whose header fits a manifest that `pack` would never write."""
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


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that every example of a property test may overwrite."""
    return tmp_path_factory.mktemp("container") / "scratch.hot"


@pytest.fixture
def hot(tmp_path: Path) -> Callable[[bytes], Path]:
    """Make a file with the given bytes."""

    def make(data: bytes) -> Path:
        path = tmp_path / "model.hot"
        path.write_bytes(data)
        return path

    return make


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


@pytest.mark.parametrize("other", [0, 2, 2**32 - 1])
def test_another_format_is_incompatible(hot: Hot, other: int) -> None:
    path = hot(forged({"blobs": []}, format=other))
    with pytest.raises(IncompatibleArtifact) as raised:
        read(path)
    assert raised.value.differences == (("format", str(FORMAT), str(other)),)


def test_the_format_is_looked_at_before_the_rest_of_the_header(hot: Hot) -> None:
    path = hot(b"HOTSTART" + struct.pack("<I", 2) + b"a shorter header")
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


# --- hostile manifests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ([entry("a", 0, b"abc", size=10 << 30)], "size"),
        ([entry("a", 0, b"abc", size=2**63 - 1)], "size"),
        ([entry("a", 0, b"abc", size=2**63)], "manifest"),
        ([entry("a", 0, b"abc", size=10**4000)], "manifest"),
        ([entry("a", 10**4000, b"abc")], "manifest"),
        ([entry("a", 0, b"abc", size=-3)], "manifest"),
        ([entry("a", -64, b"abc")], "manifest"),
        ([entry("a", 64, b"abc")], "manifest"),
        ([entry("a", 1, b"bc")], "manifest"),
        ([entry("a", 0, b"abc"), entry("b", 0, b"abc")], "manifest"),
        ([entry("a", 0, b"abc"), entry("b", 3, b"")], "manifest"),
        ([entry("b", 64, b""), entry("a", 0, b"abc")], "manifest"),
        ([entry("a", 0, b""), entry("a", 0, b"abc")], "manifest"),
        ([entry("", 0, b"abc")], "manifest"),
        ([entry("a", 0, b"ab")], "size"),
        ([], "size"),
        ([entry("a", 0, b"xyz")], "blob a"),
        ([entry("a", 0, b"abc", sha256="")], "blob a"),
        ([entry("a", 0, b"abc", sha256="0" * 100_000)], "blob a"),
        ([entry("a", 0, b"abc", sha256=hashlib.sha256(b"abc").hexdigest().upper())], "blob a"),
    ],
)
def test_a_table_that_does_not_fit_the_file_is_refused(hot: Hot, table: object, part: str) -> None:
    assert refused(hot(forged({"blobs": table}, b"abc"))).part == part


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"blobs"',
        "{}",
        '{"blobs": null}',
        '{"blobs": {}}',
        '{"blobs": [1]}',
        '{"blobs": [null]}',
        '{"blobs": [[]]}',
        '{"blobs": [{}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": 0}]}',
        '{"blobs": [{"name": 1, "offset": 0, "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": null, "offset": 0, "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": "0", "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0.5, "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": true, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": 1e999, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": 0, "sha256": 5}]}',
        '{"blobs": [{"name": "\\ud800", "offset": 0, "size": 0, "sha256": ""}]}',
        '{"blobs": []',
        '{"blobs": []}}',
        '{"blobs": []} {}',
        '{"blobs": [], "x": NaN}',
        '{"blobs": [], "x": undefined}',
        "{'blobs': []}",
        '\ufeff{"blobs": []}',
        "\0",
    ],
)
def test_a_manifest_of_another_form_is_refused(hot: Hot, text: str) -> None:
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize("digits", [20, 4301, 100_000])
def test_huge_integers_are_refused(hot: Hot, digits: int) -> None:
    text = '{"blobs": [{"name": "a", "offset": 0, "size": %s, "sha256": ""}]}' % ("9" * digits)
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"blobs": [], "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"x": ' + '{"x": ' * 100_000 + "1" + "}" * 100_000 + ', "blobs": []}',
        '{"blobs": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"blobs": [{"name": ' + "[" * 100_000 + "]" * 100_000 + "}]}",
    ],
)
def test_deep_nesting_is_refused(hot: Hot, text: str) -> None:
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize(
    "text",
    [b'{"blobs": [], "x": "\xff"}', b'{"blobs": [], "\xed\xa0\x80": 1}', b"\xff\xfe{\0}\0"],
)
def test_a_manifest_that_is_no_utf_8_is_refused(hot: Hot, text: bytes) -> None:
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize(
    "name", ["n" * 100_000, "\x1b[2J" * 50, "a\nb", "\u202etext", "\U0001f600" * 999]
)
def test_names_in_messages_are_short_and_on_one_line(hot: Hot, name: str) -> None:
    error = refused(hot(forged({"blobs": [entry(name, 0, b"xyz")]}, b"abc")))
    assert len(error.part) < 1000
    assert error.part.isprintable()
    assert str(error).isprintable()


def test_two_long_names_that_are_the_same_are_refused(hot: Hot) -> None:
    error = refused(hot(forged({"blobs": [entry("n" * 10_000, 0, b"")] * 2})))
    assert "two named nnn" in str(error)


def test_many_empty_blobs_are_no_trouble(hot: Hot) -> None:
    blobs = {str(number): b"" for number in range(10_000)}
    assert contents(read(hot(packed({}, blobs))))[1] == blobs


def test_nothing_of_a_size_that_a_manifest_claims_is_allocated(hot: Hot) -> None:
    tables = [entry(str(number), 0, b"", size=1 << 62, sha256="") for number in range(3)]
    for number, blob in enumerate(tables):
        blob["offset"] = number << 62
    assert refused(hot(forged({"blobs": tables}))).part in ("size", "manifest")


# --- files that cannot be read --------------------------------------------------------------------


def unreadable(path: str | Path) -> ArtifactError:
    with pytest.raises(ArtifactError):
        read_manifest(path)
    with pytest.raises(ArtifactError, match=r"expected a (regular )?file") as raised:
        read(path)
    assert type(raised.value) is ArtifactError
    return raised.value


def test_a_missing_file(tmp_path: Path) -> None:
    error = unreadable(tmp_path / "no.hot")
    assert isinstance(error.__cause__, FileNotFoundError)
    assert "No such file" in str(error)


def test_a_folder(tmp_path: Path) -> None:
    assert "found a folder" in str(unreadable(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(hot: Hot) -> None:
    path = hot(packed())
    path.chmod(0)
    assert isinstance(unreadable(path).__cause__, PermissionError)


def test_a_path_that_no_file_can_have() -> None:
    with pytest.raises(OptionsError, match="takes a path"):
        read("a\0b")


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.hot")
    unreadable(tmp_path / "pipe.hot")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused(device: str) -> None:
    assert "found a pipe or a device" in str(unreadable(device))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_file_of_which_nothing_can_be_found_out(
    hot: Hot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    path = hot(packed())
    before = open_files()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", failing)
        error = unreadable(path)
    assert "Stale file handle" in str(error)
    assert open_files() == before


@pytest.mark.parametrize("place", ["/", "/dev/null"])
def test_what_is_no_file_is_closed_again(place: str) -> None:
    before = open_files()
    unreadable(place)
    assert open_files() == before


def test_an_error_while_reading(hot: Hot, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", failing)
    monkeypatch.setattr(os, "readv", failing)
    assert "Input/output error" in str(unreadable(hot(packed())))


def test_reads_that_return_less_than_asked_are_continued(
    hot: Hot, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, some_into = os.read, os.readv
    path = hot(packed())
    whole = contents(read(path))
    monkeypatch.setattr(os, "read", lambda file, size: some(file, min(size, 7)))
    monkeypatch.setattr(os, "readv", lambda file, parts: some_into(file, [parts[0][:7]]))
    assert contents(read(path)) == whole
    assert read_manifest(path) == read(path).manifest


@pytest.mark.parametrize("size", [100, 800, 1000, 5000])
def test_the_manifest_alone(hot: Hot, size: int) -> None:
    """It is read with the header, or has more bytes than are read at once."""
    path = hot(packed({"text": "x" * size}))
    assert read_manifest(path) == read(path).manifest


@pytest.mark.parametrize("kind", ["text", "path", "link"])
def test_ways_to_name_a_file(hot: Hot, tmp_path: Path, kind: str) -> None:
    path = hot(packed())
    (tmp_path / "link").symlink_to(path)
    named: Any = {"text": str(path), "path": path, "link": tmp_path / "link"}[kind]
    assert read(named).file == str(named)


# --- files that change while they are read --------------------------------------------------------


def test_a_file_replaced_while_open_is_read_to_its_end(hot: Hot) -> None:
    path = hot(packed())
    whole = contents(read(path))

    def replace(*_: object) -> None:
        write(path, pack({}, {"other": b"other"}))

    assert contents(read(path, replace)) == whole
    assert contents(read(path)) != whole


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data[:-1], "size"),
        (lambda data: data[:200], "size"),
        (lambda data: b"", "size"),
        (lambda data: flipped(data, len(data) - 1), "blob odd"),
        (lambda data: flipped(data, 160), "manifest"),
        (lambda data: packed({"other": 1}), "manifest"),
    ],
)
def test_a_file_changed_in_place_while_open_is_refused(
    hot: Hot, change: Callable[[bytes], bytes], part: str
) -> None:
    path = hot(packed())

    def write_over(*_: object) -> None:
        path.write_bytes(change(path.read_bytes()))

    with pytest.raises(CorruptArtifact) as raised:
        read(path, write_over)
    assert raised.value.part == part


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_no_descriptor_stays_open(hot: Hot, tmp_path: Path) -> None:
    before = open_descriptors()
    read(hot(packed()))
    for bad in (b"", packed()[:-1], packed(sign=fake_sign)):
        with pytest.raises(ArtifactError):
            read(hot(bad), lambda *_: "refused")
    unreadable(tmp_path)
    unreadable("/dev/null")
    write(tmp_path / "new.hot", [b"new"])
    assert open_descriptors() == before


# --- writing --------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A file in a folder of its own, in which nothing else is left behind."""
    path = tmp_path / "own" / "model.hot"
    path.parent.mkdir()
    path.write_bytes(b"old")
    yield path
    assert list(path.parent.iterdir()) == [path]


def fails(error: BaseException) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_new_file_replaces_the_old(old: Path) -> None:
    write(old, [b"new", b"", b" file"])
    assert old.read_bytes() == b"new file"


def test_a_file_that_was_not_there(old: Path) -> None:
    old.unlink()
    write(str(old), [b"new"])
    assert old.read_bytes() == b"new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_mode_is_that_of_a_plain_open(old: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(old, [b"new"])
    finally:
        os.umask(before)
    assert old.stat().st_mode & 0o777 == 0o666 & ~umask


class HalfWritten(io.FileIO):
    """A file on a disk that is full after three bytes."""

    error: BaseException

    def write(self, data: Any) -> int:
        super().write(memoryview(data)[:3])
        raise self.error


@pytest.mark.parametrize("step", ["open", "write", "sync", "replace", "parts"])
@pytest.mark.parametrize("make", [no_space, KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_fails_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str, make: Callable[[], BaseException]
) -> None:
    error = make()
    parts: Any = [b"x" * 100_000]
    match step:
        case "open":
            monkeypatch.setattr(Path, "open", fails(error))
        case "write":
            HalfWritten.error = error
            monkeypatch.setattr(
                Path, "open", lambda path, mode: io.BufferedWriter(HalfWritten(path, mode))
            )
        case "sync":
            monkeypatch.setattr(os, "fsync", fails(error))
        case "replace":
            monkeypatch.setattr(os, "replace", fails(error))
        case "parts":
            parts = (part() for part in (lambda: b"x" * 100_000, fails(error)))
    wanted = ArtifactError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted) as raised:
        write(old, parts)
    monkeypatch.undo()
    assert old.read_bytes() == b"old"
    if isinstance(error, OSError):
        assert raised.value.__cause__ is error
        assert "No space left on device" in str(raised.value)


def test_a_folder_that_cannot_be_synced_is_no_failure(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def files_only(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    write(old, [b"new"])
    assert old.read_bytes() == b"new"


def test_an_interrupt_after_the_replacement_leaves_the_new_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def replaced(*paths: Any) -> None:
        replace(*paths)
        monkeypatch.setattr(os, "fsync", fails(KeyboardInterrupt()))

    monkeypatch.setattr(os, "replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        write(old, [b"new"])
    assert old.read_bytes() == b"new"


def test_data_is_on_disk_before_the_replacement_and_the_folder_after(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("folder" if place == old.parent else f"file of {place.stat().st_size} bytes")
        sync(descriptor)

    def replaced(*paths: Any) -> None:
        steps.append("replace")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write(old, [b"new"])
    assert steps == ["file of 3 bytes", "replace", "folder"]


def test_a_folder_in_the_place_of_the_file(old: Path) -> None:
    old.unlink()
    old.mkdir()
    with pytest.raises(ArtifactError) as raised:
        write(old, [b"new"])
    assert isinstance(raised.value.__cause__, IsADirectoryError)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file") as raised:
        write(tmp_path / "no" / "model.hot", [b"new"])
    assert isinstance(raised.value.__cause__, FileNotFoundError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ArtifactError) as raised:
        write(tmp_path / "model.hot", [b"new"])
    assert isinstance(raised.value.__cause__, PermissionError)


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".hot")
    write(path, [b"new"])
    assert path.read_bytes() == b"new"


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.hot"
    path.write_bytes(b"old")
    code = """
import sys, time
from hotstart.artifact.disk import write

def parts():
    yield b"x" * 1_000_000
    print("half", flush=True)
    time.sleep(60)

write(sys.argv[1], parts())
"""
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


# --- anything at all ------------------------------------------------------------------------------

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
