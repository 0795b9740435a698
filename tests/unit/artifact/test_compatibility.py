"""Parts of a fingerprint that fit, and those that do not. Needs no other hardware."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hotstart
from hotstart.artifact import container
from hotstart.artifact.compatibility import misfits
from hotstart.artifact.fingerprint import host
from hotstart.artifact.read import to_artifact
from hotstart.version import VERSION

PARTS = {
    "hotstart": "0.2.0",
    "python": "cpython-311 (cpython-311-x86_64-linux-gnu)",
    "bytecode": "a70d0d0a",
    "torch": "2.13.0+cpu",
    "torch_build": "cf30153c",
    "platform": "linux-x86_64",
    "libc": "glibc 2.36",
    "instructions": ["avx", "avx2", "avx512f"],
}


def test_parts_come_in_the_order_they_are_compared() -> None:
    assert list(host()) == list(PARTS)


def test_parts_survive_json() -> None:
    assert misfits(json.loads(json.dumps(host())), host()) == []


def test_equal_parts_fit() -> None:
    assert misfits(PARTS, dict(PARTS)) == []


@pytest.mark.parametrize("name", ["python", "bytecode", "torch", "torch_build", "platform"])
def test_most_parts_must_be_equal(name: str) -> None:
    assert misfits(PARTS, PARTS | {name: "other"}) == [(name, PARTS[name], "other")]


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_part_does_not_fit(name: str) -> None:
    ((misfit, _, found),) = misfits(PARTS, {k: v for k, v in PARTS.items() if k != name})
    assert (misfit, found) == (name, "nothing")


def test_misfits_come_in_order() -> None:
    assert [name for name, _, _ in misfits(PARTS, {})] == list(PARTS)


@pytest.mark.parametrize("found", ["0.2.0", "0.2.0.dev3", "0.2", "0.2.1", "0.10.0", "1.0.0rc1"])
def test_the_same_hotstart_or_a_newer_one_fits(found: str) -> None:
    assert misfits(PARTS, PARTS | {"hotstart": found}) == []


@pytest.mark.parametrize("found", ["0.1.9", "0.1.0.dev0", "unknown", "0.0"])
def test_an_older_hotstart_does_not_fit(found: str) -> None:
    assert misfits(PARTS, PARTS | {"hotstart": found}) == [("hotstart", "0.2.0 or newer", found)]


def test_a_newer_libc_fits() -> None:
    assert misfits(PARTS, PARTS | {"libc": "glibc 2.100"}) == []


@pytest.mark.parametrize("found", ["glibc 2.4", "glibc 2.35", "musl 2.40"])
def test_an_older_or_other_libc_does_not_fit(found: str) -> None:
    assert misfits(PARTS, PARTS | {"libc": found}) == [("libc", "glibc 2.36 or newer", found)]


def test_a_program_without_glibc_does_not_fit_one_with_it() -> None:
    assert misfits(PARTS | {"libc": None}, PARTS) == [("libc", "nothing", "glibc 2.36")]


def test_more_instructions_fit() -> None:
    assert misfits(PARTS, PARTS | {"instructions": [*PARTS["instructions"], "amx_tile"]}) == []


def test_missing_avx512_is_named_alone() -> None:
    assert misfits(PARTS, PARTS | {"instructions": ["avx", "avx2", "gfni"]}) == [
        ("instructions", "a CPU with avx512f", "a CPU without")
    ]


@pytest.mark.parametrize("name", ["options", "graph"])
def test_parts_that_are_only_recorded_always_fit(name: str) -> None:
    assert misfits({name: {"on_miss": "error"}}, {}) == []


def test_devices_that_this_version_does_not_name_do_not_fit() -> None:
    assert misfits({"device": {}}, {}) == []
    assert misfits({"device": {"cuda": "sm_90"}}, {}) == [("device", "cuda sm_90", "nothing")]


def test_a_part_of_a_later_version_must_be_equal() -> None:
    built = {"moon": {"phase": "full", "seas": ["east", "west"]}}
    assert misfits(built, built) == []
    assert misfits(built, {}) == [("moon", "phase full, seas east, west", "nothing")]


def test_sources_are_left_to_changed_sources() -> None:
    assert misfits({"sources": {"no.such.module": {"content": "0" * 32}}}, {}) == []


def written(file: Path, built_by: str) -> Path:
    """A whole file whose records this version does not know."""
    parts = container.file_parts({"fingerprint": {"hotstart": built_by}, "calls": 3}, {})
    file.write_bytes(b"".join(parts))
    return file


def test_records_of_another_version_are_no_damage(tmp_path: Path) -> None:
    file = written(tmp_path / "m.hot", "0.0.1")
    with pytest.raises(hotstart.IncompatibleArtifact, match=r"those of hotstart 0\.0\.1"):
        hotstart.inspect(file)
    with pytest.raises(hotstart.IncompatibleArtifact, match=r"those of hotstart 0\.0\.1"):
        to_artifact(container.read(file))


def test_records_of_this_version_that_cannot_be_read_are_damage(tmp_path: Path) -> None:
    file = written(tmp_path / "m.hot", VERSION)
    with pytest.raises(hotstart.CorruptArtifact, match="expected what hotstart writes"):
        hotstart.inspect(file)
    with pytest.raises(hotstart.CorruptArtifact, match="expected what hotstart writes"):
        to_artifact(container.read(file))
