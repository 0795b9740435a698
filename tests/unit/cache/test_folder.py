"""Files that many processes share: whole or not there, whatever the file system does."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotstart.artifact import disk
from hotstart.cache.file_names import LAYOUT
from hotstart.cache.folder import KEPT_IN_QUARANTINE, Folder
from hotstart.cache.tidying import GRACE_S, LEFTOVER_S, Limits
from hotstart.errors import StoreError

NAME = "ab" * 32
OTHER = "cd" * 32
LONG_AGO = 10 * LEFTOVER_S


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def folder(root: Path) -> Folder:
    return Folder(root)


def age(folder: Folder, name: str, seconds: float, kind: str = "objects") -> None:
    then = time.time() - seconds
    os.utime(folder.path(kind, name), (then, then))


def names(folder: Folder) -> list[str]:
    return sorted(stored.name for stored in folder.files())


# --- reading and writing --------------------------------------------------------------------------


def test_what_is_written_is_read(folder: Folder) -> None:
    assert folder.read("objects", NAME) is None
    assert folder.write("objects", NAME, [b"one", b"two"])
    assert folder.read("objects", NAME) == b"onetwo"


def test_a_file_never_changes(folder: Folder) -> None:
    folder.write("objects", NAME, [b"first"])
    assert folder.write("objects", NAME, [b"second"])
    assert folder.read("objects", NAME) == b"first"


def test_kinds_are_apart(folder: Folder) -> None:
    folder.write("objects", NAME, [b"object"])
    assert folder.read("units", NAME) is None


def test_files_are_found_by_how_their_names_begin(folder: Folder) -> None:
    for name in (NAME, "abcd", "abce", OTHER):
        folder.write("objects", name, [b""])
    assert list(folder.names("objects")) == ["abab" + NAME[4:], "abcd", "abce", OTHER]
    assert list(folder.names("objects", "abc")) == ["abcd", "abce"]
    assert list(folder.names("units")) == []


@pytest.mark.parametrize("name", ["", "ab", "../../etc", "ab/cd", ".hidden", "AB" * 4, "a" * 300])
def test_a_name_that_is_no_name_is_refused(folder: Folder, name: str) -> None:
    with pytest.raises(StoreError, match="expected"):
        folder.write("objects", name, [b""])


def test_the_folder_says_that_it_is_a_cache(folder: Folder, root: Path) -> None:
    folder.write("objects", NAME, [b""])
    assert (root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d1727")


def test_nothing_is_made_by_looking(folder: Folder, root: Path) -> None:
    assert folder.read("objects", NAME) is None
    assert not folder.remove("objects", NAME)
    assert folder.tidy().kept_files == 0
    assert not root.exists()


def test_a_folder_that_was_moved_or_emptied_goes_on(folder: Folder, root: Path) -> None:
    folder.write("objects", NAME, [b"kept"])
    moved = root.rename(root.with_name("elsewhere"))
    assert Folder(moved).read("objects", NAME) == b"kept"
    assert folder.read("objects", NAME) is None
    assert folder.write("objects", NAME, [b"again"])
    assert folder.read("objects", NAME) == b"again"


# --- what goes wrong ------------------------------------------------------------------------------


def failing(code: int, times: int = 10**9) -> Callable[..., Any]:
    """`os.fsync`, which fails with an error a number of times."""
    original = os.fsync
    left = [times]

    def fsync(file: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(code, os.strerror(code))
        original(file)

    return fsync


PROBLEMS = ("ENOSPC", "EDQUOT", "EACCES", "EROFS", "EIO", "ESTALE")


@pytest.fixture(params=PROBLEMS)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(getattr(errno, request.param)))


@pytest.mark.usefixtures("broken")
def test_what_cannot_be_written_is_not_kept(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert not folder.write("objects", NAME, [b"data"])
    assert folder.read("objects", NAME) is None
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1  # once for each reason, not for each file
    assert "going on without" in warnings[0].getMessage()
    assert sum(folder.problems.values()) == 3


@pytest.mark.usefixtures("broken")
def test_a_strict_folder_raises(root: Path) -> None:
    with pytest.raises(StoreError, match="expected to write"):
        Folder(root, strict=True).write("objects", NAME, [b"data"])


def test_a_folder_where_a_file_is_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = Folder(tmp_path / "file")
    assert not folder.write("objects", NAME, [b"data"])
    assert folder.read("objects", NAME) is None
    assert folder.tidy().kept_files == 0
    with folder.lock(NAME, 0) as held:
        assert not held


def test_a_full_disk_makes_room_by_what_was_not_used_for_longest(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate((NAME, OTHER, "ef" * 32)):
        folder.write("objects", name, [bytes(100)])
        age(folder, name, LONG_AGO - number)
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC, times=1))
    assert folder.write("objects", "12" * 32, [bytes(150)])
    assert names(folder) == ["12" * 32, "ef" * 32]


def test_a_full_disk_makes_room_for_a_new_folder_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("objects", NAME, [bytes(100)])
    age(folder, NAME, LONG_AGO)
    original, left = Path.mkdir, [1]

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert folder.write("objects", OTHER, [bytes(50)])
    assert names(folder) == [OTHER]


def test_a_damaged_file_is_put_away_and_can_be_written_again(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write("objects", NAME, [b"damaged"])
    folder.quarantine("objects", NAME, "a bit flipped")
    assert folder.read("objects", NAME) is None
    assert folder.in_quarantine() == [f"objects-{NAME}"]
    assert "a bit flipped" in caplog.text
    assert folder.write("objects", NAME, [b"whole"])
    assert folder.read("objects", NAME) == b"whole"


def test_few_damaged_files_are_kept(folder: Folder) -> None:
    for number in range(KEPT_IN_QUARANTINE + 5):
        name = f"{number:04}"
        folder.write("objects", name, [b"damaged"])
        folder.quarantine("objects", name, "a bit flipped")
    assert len(folder.in_quarantine()) == KEPT_IN_QUARANTINE


# --- tidying up -----------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first(folder: Folder) -> None:
    for number, name in enumerate((NAME, OTHER, "ef" * 32)):
        folder.write("objects", name, [bytes(100)])
        age(folder, name, LONG_AGO - number)
    assert folder.read("objects", NAME)  # used just now
    done = folder.tidy(Limits(bytes=150))
    assert [stored.name for stored in done.removed] == [OTHER, "ef" * 32]
    assert (done.kept_bytes, done.kept_files) == (100, 1)


def test_files_are_counted_too(folder: Folder) -> None:
    for number, name in enumerate((NAME, OTHER)):
        folder.write("objects", name, [b"x"])
        age(folder, name, LONG_AGO - number)
    folder.tidy(Limits(files=1))
    assert names(folder) == [OTHER]


def test_what_is_too_old_goes_whatever_the_size(folder: Folder) -> None:
    for name, seconds in ((NAME, 1000.0), (OTHER, 100.0)):
        folder.write("objects", name, [b"x"])
        age(folder, name, seconds)
    folder.tidy(Limits(age_s=500))
    assert names(folder) == [OTHER]


def test_what_is_in_use_stays(folder: Folder) -> None:
    folder.write("objects", NAME, [bytes(100)])
    age(folder, NAME, GRACE_S / 4)
    assert folder.tidy(Limits(bytes=0)).removed == ()
    age(folder, NAME, 2 * GRACE_S)
    folder.used("objects", NAME)
    assert folder.tidy(Limits(bytes=0)).removed == ()
    age(folder, NAME, 2 * GRACE_S)
    assert len(folder.tidy(Limits(bytes=0)).removed) == 1


def test_what_was_to_be_written_and_is_there_is_in_use(folder: Folder) -> None:
    folder.write("objects", NAME, [bytes(100)])
    age(folder, NAME, LONG_AGO)
    assert folder.write("objects", NAME, [bytes(100)])
    assert folder.tidy(Limits(bytes=0)).removed == ()


def test_a_file_from_the_future_is_in_use(folder: Folder) -> None:
    folder.write("objects", NAME, [bytes(100)])
    age(folder, NAME, -LONG_AGO)
    assert folder.tidy(Limits(bytes=0, age_s=1)).removed == ()
    folder.read("objects", NAME)  # sets the clock right
    assert abs(time.time() - folder.path("objects", NAME).stat().st_mtime) < 10


def test_what_killed_writers_left_is_removed(folder: Folder) -> None:
    folder.write("objects", NAME, [b"x"])
    shard = folder.path("objects", NAME).parent
    recent, old = (shard / f"{disk.TEMPORARY}{n}.tmp" for n in ("recent", "old"))
    for file in (recent, old):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - LONG_AGO,) * 2)
    assert folder.tidy().leftovers == 1
    assert recent.exists()
    assert not old.exists()
    assert names(folder) == [NAME]


# --- locks ----------------------------------------------------------------------------------------


def test_one_holds_a_lock_at_a_time(folder: Folder, root: Path) -> None:
    with folder.lock(NAME, 0) as mine, Folder(root).lock(NAME, 0) as theirs:
        assert mine
        assert not theirs
    with Folder(root).lock(NAME, 0) as theirs:
        assert theirs


def test_locks_of_different_names_are_apart(folder: Folder) -> None:
    with folder.lock(NAME, 0) as one, folder.lock(OTHER, 0) as other:
        assert one and other  # noqa: PT018


def test_a_lock_is_waited_for(folder: Folder, root: Path) -> None:
    order: list[str] = []

    def wait() -> None:
        with Folder(root).lock(NAME, 30) as held:
            order.append(f"second {held}")

    with folder.lock(NAME, 0):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        order.append("first")
    waiting.join()
    assert order == ["first", "second True"]


def test_waiting_says_so(folder: Folder, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hotstart"):
        with folder.lock(NAME, 30) as held:
            assert held
        assert not caplog.records
        with folder.lock(NAME, 0), Folder(root).lock(NAME, 0.05):
            pass
    assert "waiting for a process that holds" in caplog.messages[0]


def test_a_lock_whose_file_is_removed_meanwhile_is_no_lock_on_nothing(
    folder: Folder, root: Path
) -> None:
    file = root / LAYOUT / "locks" / NAME
    found: list[bool] = []

    def wait() -> None:
        with Folder(root).lock(NAME, 30) as held:
            found.append(held and file.exists())

    with folder.lock(NAME, 0):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        file.unlink()
    waiting.join()
    assert found == [True]


FORKED = """
import os, signal, sys, time
from hotstart.cache.folder import Folder

with Folder(sys.argv[1]).lock(sys.argv[2], 0) as held:
    if os.fork() == 0:
        time.sleep(60)
    print(held, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lock_ends_with_its_process_and_not_with_a_child(folder: Folder, root: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(root), NAME]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        holder.wait()
        try:
            with folder.lock(NAME, 5) as held:
                assert held
        finally:
            os.killpg(holder.pid, signal.SIGKILL)


def test_waiting_ends(folder: Folder, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with folder.lock(NAME, 0), Folder(root).lock(NAME, 0.05) as held:
        assert not held
    assert "going on without" in caplog.text


def test_a_file_system_without_locks_is_done_without(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder.lock(NAME, 30) as held:
        assert not held
    assert "going on without" in caplog.text
    assert folder.write("objects", NAME, [b"data"])


def test_a_lock_that_is_held_is_not_tidied_away(folder: Folder, root: Path) -> None:
    with folder.lock(NAME, 0):
        (lock,) = (root / LAYOUT / "locks").iterdir()
        os.utime(lock, (0, 0))
        folder.tidy()
        with Folder(root).lock(NAME, 0) as held:
            assert not held
    folder.tidy()
    assert not lock.exists()
