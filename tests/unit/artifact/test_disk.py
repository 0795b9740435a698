"""A file is replaced whole: there is the old one or the new one."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hotstart.artifact.disk import write
from hotstart.errors import ArtifactError


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
