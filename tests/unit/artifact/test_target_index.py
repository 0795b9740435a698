"""A file with several targets gives back each, has equal parts once, and every byte verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotstart.artifact import container
from hotstart.artifact.compatibility import best_that_fits
from hotstart.artifact.container import read, read_all, read_manifest, read_targets
from hotstart.artifact.disk import write
from hotstart.artifact.pool import Pool, TargetProgram, parts_of_several, text_parts
from hotstart.artifact.target_index import Target, own_bytes
from hotstart.errors import CorruptArtifact, UntrustedArtifact
from tests.unit.artifact.containers import (
    HEADER,
    Hot,
    contents,
    fake_sign,
    fake_trust,
    flipped,
)

SHARED = {"text": "x" * 3000, "list": [{"number": n, "more": "y" * 90} for n in range(40)]}
BLOBS = {"shared": bytes(range(256)) * 9, "data": b"abc"}


def program(target: str, **more: Any) -> TargetProgram:
    return TargetProgram(
        target,
        [target],
        {"target": target, **SHARED, "own": target * 50, **more},
        {"kernel": target.encode() * 300, **BLOBS},
    )


PROGRAMS = (program("high"), program("low"))


def packed(programs: Sequence[TargetProgram] = PROGRAMS, **more: Any) -> bytes:
    return b"".join(parts_of_several(programs, **more))


def named(name: str) -> container.Choose:
    return lambda targets: next(each for each in targets if each.target == name)


def index_of(data: bytes) -> dict[str, Any]:
    size = HEADER.unpack_from(data)[4]
    found: dict[str, Any] = json.loads(data[HEADER.size : HEADER.size + size])
    return found


def forged(index: Any, pool: bytes) -> bytes:
    """A file whose header fits an index that `parts_of_several` would never write."""
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    size = HEADER.size + len(text) + len(pool)
    digest = hashlib.sha256(text).digest()
    fields = (b"HOTSTART", 2, 0, size, len(text), digest, bytes(32), bytes(64))
    return HEADER.pack(*fields) + text + pool


def pool_of(data: bytes) -> bytes:
    return data[HEADER.size + HEADER.unpack_from(data)[4] :]


def test_each_target_gives_back_what_was_packed(hot: Hot) -> None:
    path = hot(packed())
    for each in PROGRAMS:
        found = read(path, choose=named(each.target))
        assert found.target is not None
        assert found.target.target == each.target
        assert [one.target for one in found.targets] == ["high", "low"]
        assert json.loads(found.manifest).items() >= each.manifest.items()
        assert contents(found)[1] == each.blobs
        assert read_manifest(path, named(each.target)) == found.manifest
    assert [contents(one) for one in read_all(path)] == [
        contents(read(path, choose=named(each.target))) for each in PROGRAMS
    ]
    assert read(path).target == read_targets(path)[0]  # the best, where nobody chooses


def test_bytes_are_read_as_a_file_is(hot: Hot) -> None:
    data = packed()
    every = container.read_bytes("name", data)
    assert [contents(one) for one in every] == [contents(one) for one in read_all(hot(data))]
    assert contents(container.pick(every, named("low"))) == contents(every[1])


Blobs = st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=900) | st.just(b"z" * 700))
Json = st.dictionaries(st.text(max_size=5), st.text(max_size=700) | st.lists(st.integers()))


@pytest.mark.thorough
@given(st.lists(st.tuples(Json, Blobs), min_size=1, max_size=3))
def test_any_targets_make_the_round_trip(
    scratch: Path, given: list[tuple[dict[str, Any], dict[str, bytes]]]
) -> None:
    programs = [TargetProgram(f"t{n}", [], *each) for n, each in enumerate(given)]
    write(scratch, parts_of_several(programs))
    for found, each in zip(read_all(scratch), programs, strict=True):
        assert contents(found)[1] == each.blobs
        decoded = json.loads(found.manifest)
        assert {**each.manifest, "blobs": decoded["blobs"]} == decoded
        assert [b["sha256"] for b in decoded["blobs"]] == [
            hashlib.sha256(each.blobs[b["name"]]).hexdigest() for b in decoded["blobs"]
        ]


def test_equal_parts_are_there_once() -> None:
    data = packed()
    assert data.count(BLOBS["shared"]) == 1
    assert data.count(SHARED["text"].encode()) == 1
    single = [len(b"".join(container.file_parts(each.manifest, each.blobs))) for each in PROGRAMS]
    assert len(data) < sum(single) - 3000 - len(BLOBS["shared"]) - 2000


def test_many_targets_are_read_in_few_ranges(hot: Hot) -> None:
    targets = read_targets(hot(packed([program(f"t{n}") for n in range(6)])))
    assert len(targets[0].ranges) == 1
    assert max(len(each.ranges) for each in targets) <= 8


def test_the_same_targets_give_the_same_bytes() -> None:
    assert packed() == packed()


def test_own_bytes_are_those_that_no_other_target_has(hot: Hot) -> None:
    path = hot(packed())
    first, second = own_bytes(read_targets(path))
    pool = len(pool_of(path.read_bytes()))
    used = [each.size for each in read_targets(path)]
    assert first + second < pool
    assert used[0] - first == used[1] - second == pool - first - second


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_every_byte_is_verified_where_all_is_read(hot: Hot) -> None:
    data = packed()
    for place in range(0, len(data), 7):
        if 64 <= place < HEADER.size:
            continue  # a key or a signature, which nobody asked for
        with pytest.raises(Exception, match=r"expected|does not fit") as raised:
            list(read_all(hot(flipped(data, place))))
        assert type(raised.value).__name__ in ("CorruptArtifact", "IncompatibleArtifact")


def test_a_target_that_is_not_chosen_is_not_read(hot: Hot) -> None:
    data = packed()
    place = data.index(b"lowlowlow")
    path = hot(flipped(data, place))
    assert contents(read(path, choose=named("high")))[1] == PROGRAMS[0].blobs
    with pytest.raises(CorruptArtifact):
        read(path, choose=named("low"))


def test_a_file_that_ends_early_or_late_is_damaged(hot: Hot) -> None:
    data = packed()
    for other in (data[:-1], data + b"\0", data[:170]):
        with pytest.raises(CorruptArtifact) as raised:
            read(hot(other))
        assert raised.value.part == "size"


def test_bytes_that_no_target_has_are_refused(hot: Hot) -> None:
    data = packed()
    path = hot(forged(index_of(data), pool_of(data) + b"more"))
    assert contents(read(path))[1] == PROGRAMS[0].blobs
    with pytest.raises(CorruptArtifact, match="bytes that targets use"):
        list(read_all(path))


def changed(**fields: Any) -> dict[str, Any]:
    index = index_of(packed())
    index["targets"][0] |= fields
    return index


@pytest.mark.parametrize(
    "index",
    [
        b"\xff",
        b"[]",
        {},
        {"targets": []},
        {"targets": [{"target": "high"}]},
        changed(ranges=[[0, 2**62]]),
        changed(ranges=[[2**62, 2**62]]),
        changed(ranges=[[-1, 5]]),
        changed(ranges=[]),
        changed(ranges=[[0, 200]], manifest_bytes=190),
        changed(manifest_bytes=2**62),
        changed(manifest_bytes=5),
        changed(sha256="no digest"),
        changed(sha256="é" * 32),
        changed(sha256="00" * 32),
        changed(target="low"),
        changed(instructions="avx"),
    ],
    ids=str,
)
def test_an_index_that_does_not_hold_together_is_refused(hot: Hot, index: Any) -> None:
    path = hot(forged(index, pool_of(packed())))
    with pytest.raises(CorruptArtifact) as raised:
        read(path)
    assert len(str(raised.value)) < 2000
    with pytest.raises(CorruptArtifact):
        read_manifest(path)


def test_a_signature_stands_for_all_targets(hot: Hot) -> None:
    signed = packed(sign=fake_sign)
    assert read(hot(signed), fake_trust).signed == signed[:64]
    assert len(list(read_all(hot(signed), fake_trust))) == 2
    with pytest.raises(UntrustedArtifact):
        read(hot(packed()), fake_trust)
    other = packed([program("high", more=1), program("low")])
    with pytest.raises(UntrustedArtifact):
        read(hot(other[:64] + signed[64:160] + other[160:]), fake_trust)


# --- choosing and writing -------------------------------------------------------------------------


def target(name: str, *instructions: str) -> Target:
    return Target(name, instructions, 0, "", ())


@pytest.mark.parametrize(
    ("here", "chosen"),
    [("a b c d", "all"), ("a b c", "some"), ("a", "least"), ("b c", "least"), ("", "least")],
)
def test_the_first_that_fits_is_the_best(
    here: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotstart.artifact.fingerprint.instructions", here.split)
    targets = [target("all", *"abcd"), target("some", *"abc"), target("least", "a")]
    assert best_that_fits(targets).target == chosen


@pytest.mark.parametrize(
    ("here", "chosen"),
    [("sse2 avx2", "v3"), ("sse2", "v3"), ("asimd fp sve", "arm"), ("asimd", "arm"), ("", "arm")],
)
def test_a_target_of_this_architecture_is_taken_or_told_about(
    here: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotstart.artifact.fingerprint.instructions", here.split)
    targets = [target("v3", "sse2", "avx2"), target("arm", "asimd", "fp")]
    assert best_that_fits(targets).target == chosen


Leaf = st.integers() | st.text(max_size=400)


@pytest.mark.thorough
@given(st.recursive(Leaf, lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside)))
def test_text_in_parts_is_the_text(value: Any) -> None:
    assert json.loads(b"".join(text_parts(value))) == value


@given(st.lists(st.lists(st.sampled_from([b"", b"a", b"bc", b"x" * 600, b"y" * 700]))))
def test_ranges_of_a_pool_are_the_parts(given: list[list[bytes]]) -> None:
    pool = Pool()
    ranges = [pool.add(parts) for parts in given]
    data = b"".join(pool.parts)
    for parts, places in zip(given, ranges, strict=True):
        assert b"".join(data[at : at + size] for at, size in places) == b"".join(parts)
    assert data.count(b"x" * 600) <= 1
