"""`hotstart cache`, on a folder with entries that were written without compiling anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotstart.artifact import container
from hotstart.cache.entries import PROGRAMS, CacheEntry, Entries, hash_of
from hotstart.cache.folder import Folder
from hotstart.cli import main
from hotstart.records.guards import Guard, ProgramKey, Seen

SEEN = (Seen("environment", "SCALE", Guard((), "value", "'3'")),)


def fill(root: Path, count: int) -> list[CacheEntry]:
    """Entries of different ages, each with a program."""
    folder = Folder(root)
    made = []
    for number in range(count):
        parts = container.file_parts({"number": number}, {})
        program = f"{number:064x}"
        size = sum(map(len, parts))
        key = ProgramKey(f"{number + 1:08x}" + 24 * "0", {"torch": "2.13.0", "number": str(number)})
        entry = CacheEntry(
            key.digest, program, size, time.time() - 60 * number, "Model", hash_of(SEEN)
        )
        folder.write(PROGRAMS, program, parts)
        assert Entries(folder).write(entry, key, SEEN)
        made.append(entry)
    return made


def age(root: Path) -> None:
    """Let the files of a cache be used long ago."""
    for file in root.rglob("*"):
        if file.is_file():
            os.utime(file, (0, 0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "cache", 3)
    return tmp_path / "cache"


def asked(capsys: pytest.CaptureFixture[str], *command: object) -> tuple[int, str, str]:
    status = main(["cache", *map(str, command)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *command: object) -> Any:
    status, out, _ = asked(capsys, *command, "--json")
    assert status == 0
    return json.loads(out)


def test_ls_lists_the_newest_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, "ls", "--cache", root)
    assert status == 0
    keys = [line.split()[0] for line in out.splitlines()[1:]]
    assert keys == ["000000010000", "000000020000", "000000030000"]
    assert "just now" in out
    assert "2 min ago" in out
    assert [entry["model"] for entry in as_json(capsys, "ls", "--cache", root)] == 3 * ["Model"]


def test_ls_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = asked(capsys, "ls", "--cache", tmp_path / "none")
    assert (status, out) == (0, "")
    assert "nothing is stored" in err
    assert not (tmp_path / "none").exists()


def test_the_environment_names_the_folder(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTSTART_CACHE", str(root))
    assert len(as_json(capsys, "ls")) == 3


def test_show_says_what_a_program_was_compiled_for(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = asked(capsys, "show", "00000002", "--cache", root)
    assert status == 0
    assert "number = 1" in out
    assert "environment SCALE = '3'" in out
    (shown,) = as_json(capsys, "show", "00000002", "--cache", root)
    assert shown["parts"] == {"torch": "2.13.0", "number": "1"}


@pytest.mark.parametrize("key", ["", "00", "ffffffff"])
@pytest.mark.parametrize("action", ["show", "rm"])
def test_a_key_that_names_nothing_is_an_error(
    action: str, key: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = asked(capsys, action, key, "--cache", root)
    assert status == 1
    assert "hotstart cache ls" in err
    assert len(Entries(Folder(root)).all()) == 3


def test_rm_removes_a_program_and_its_entry(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "rm", "00000002", "--cache", root)["ok"]
    assert len(Entries(Folder(root)).all()) == 2
    assert len(list(Folder(root).names(PROGRAMS))) == 2


def test_stats_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "stats", "--cache", root)
    assert {kind: n["files"] for kind, n in found["kinds"].items()} == {"entries": 3, "programs": 3}
    assert found["quarantine"] == []
    status, out, _ = asked(capsys, "stats", "--cache", root)
    assert status == 0
    assert "programs" in out


def flip_a_bit(folder: Folder) -> None:
    path = folder.path(PROGRAMS, next(iter(folder.names(PROGRAMS))))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_verify_finds_a_flipped_bit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "verify", "--cache", root) == {"ok": True, "files": 6, "damaged": []}
    flip_a_bit(Folder(root))
    status, out, _ = asked(capsys, "verify", "--cache", root, "--json")
    assert (status, len(json.loads(out)["damaged"])) == (1, 1)
    assert as_json(capsys, "verify", "--cache", root)["ok"]  # what was damaged is in quarantine


def test_verify_says_what_is_damaged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(root)
    flip_a_bit(folder)
    status, _, err = asked(capsys, "verify", "--cache", root)
    assert status == 1
    assert "found 1 damaged, not to be read or untrusted" in err
    assert len(folder.in_quarantine()) == 1


def test_gc_keeps_to_limits_and_removes_what_has_no_program(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(root)
    age(root)
    folder.remove(PROGRAMS, next(iter(folder.names(PROGRAMS))))
    done = as_json(capsys, "gc", "--cache", root)
    assert [removed["kind"] for removed in done["removed"]] == ["entries"]
    done = as_json(capsys, "gc", "--cache", root, "--max-bytes", 0)
    assert (done["kept_files"], done["kept_bytes"]) == (0, 0)
    status, out, _ = asked(capsys, "gc", "--cache", root)
    assert status == 0
    assert "kept 0 files" in out


def test_what_is_pinned_stays(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, "pin", "00000002", "--cache", root)[:2] == (0, "pinned 1 programs\n")
    assert [one["pinned"] for one in as_json(capsys, "ls", "--cache", root)] == [False, True, False]
    age(root)
    assert as_json(capsys, "gc", "--cache", root, "--max-bytes", 0)["kept_files"] == 2
    (entry,) = Entries(Folder(root)).all()
    assert entry.key.startswith("00000002")
    assert asked(capsys, "ls", "--cache", root)[1].splitlines()[1].endswith("pinned")
    assert len(as_json(capsys, "unpin", "00000002", "--cache", root)["unpinned"]) == 1
    assert as_json(capsys, "unpin", "00000002", "--cache", root)["unpinned"] == []
    age(root)
    assert as_json(capsys, "gc", "--cache", root, "--max-bytes", 0)["kept_files"] == 0


def test_a_program_stays_pinned_while_one_of_its_entries_is(root: Path) -> None:
    entries = Entries(Folder(root))
    first = entries.all()[0]
    other = msgspec.structs.replace(first, key="ab" + first.key[2:])
    assert entries.write(other, ProgramKey(other.key, {}), SEEN)
    assert entries.pin(first)
    assert entries.pin(other)
    assert entries.unpin(first)
    assert Folder(root).pinned(PROGRAMS) == {first.program}
    assert entries.remove(other)
    assert Folder(root).pinned(PROGRAMS) == set()


def test_nothing_of_it_imports_torch(root: Path) -> None:
    code = (
        "import sys; from hotstart.cli import main\n"
        "for action in ('ls', 'stats', 'verify', 'gc'):\n"
        f"    main(['cache', action, '--cache', {str(root)!r}])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
