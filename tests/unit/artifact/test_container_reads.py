"""Files that cannot be read, or change meanwhile, are errors with a reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotstart.artifact.container import file_parts, read, read_manifest
from hotstart.artifact.disk import write
from hotstart.errors import ArtifactError, CorruptArtifact, OptionsError
from tests.unit.artifact.containers import Hot, contents, fake_sign, flipped, packed


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
        write(path, file_parts({}, {"other": b"other"}))

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
