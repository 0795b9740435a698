"""A folder and a remote: numbered entries, what is wrong with them, writers at the same time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotstart import Store, StoreError
from hotstart.artifact import container, fingerprint
from hotstart.cache.entries import ENTRIES, PROGRAMS, CacheEntry
from hotstart.cache.tiers import NUMBERED, Exchange
from hotstart.records.guards import ProgramKey

KEY = ProgramKey("ab" * 16, {"torch": "2.13.0"})


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def machine(tmp_path: Path, shared: Path) -> Callable[..., Store]:
    """Makes a store with a folder of its own, and the shared remote."""

    def make(name: str, **settings: Any) -> Store:
        return Store(tmp_path / name, remote=f"file://{shared}", **settings)

    return make


def program(text: str, **manifest: Any) -> list[bytes]:
    return container.file_parts(
        {"fingerprint": fingerprint.host(), **manifest}, {"code": text.encode() * 100}
    )


def kept(store: Store, text: str, key: ProgramKey = KEY) -> CacheEntry:
    entry = store.keep(key, program(text), (), "Model")
    assert entry is not None
    return entry


def exchange(store: Store) -> Exchange:
    assert store.exchange is not None
    return store.exchange


def numbered(store: Store, key: ProgramKey = KEY) -> list[str]:
    """The programs that the remote offers, the newest first."""
    it = exchange(store)
    return [offered.entry.program for offered in it.offered(key.digest, it.remote.visit())]


def at(shared: Path, kind: str, name: str) -> Path:
    return shared / "v1" / kind / name[:2] / name


# --- what works -----------------------------------------------------------------------------------


def test_what_is_pushed_is_pulled(machine: Callable[..., Store]) -> None:
    a, b = machine("a"), machine("b")
    entry = kept(a, "one")
    assert b.pull(KEY) == []
    assert a.push(entry)
    assert b.pull(KEY) == b.probe(KEY) == [entry]
    assert b.pull(KEY.digest) == []
    for kind, name in ((ENTRIES, entry.name), (PROGRAMS, entry.program)):
        assert b.folder.read(kind, name) == a.folder.read(kind, name)
    assert b.entries.key_of(entry) == KEY


def test_a_program_that_was_put_away_here_is_pulled_again(machine: Callable[..., Store]) -> None:
    a, b = machine("a"), machine("b")
    entry = kept(a, "one")
    assert a.push(entry)
    assert b.pull(KEY) == [entry]
    b.folder.quarantine(PROGRAMS, entry.program, "for this test")
    assert b.pull(KEY) == [entry]
    assert b.folder.read(PROGRAMS, entry.program) == a.folder.read(PROGRAMS, entry.program)


def test_programs_of_a_key_are_numbered_and_the_newest_is_offered_first(
    machine: Callable[..., Store], shared: Path
) -> None:
    a = machine("a")
    entries = [kept(a, text) for text in ("one", "two", "three")]
    for entry in (*entries, *entries):
        assert a.push(entry)
    assert numbered(a) == [entry.program for entry in reversed(entries)]
    files = sorted(file.name for file in (shared / "v1/entries/ab").iterdir())
    assert files == [f"{KEY.digest}.{number}" for number in range(3)]


def test_a_program_of_two_keys_is_there_once(machine: Callable[..., Store], shared: Path) -> None:
    a, other = machine("a"), ProgramKey("cd" * 16, {})
    assert all(map(a.push, (kept(a, "one"), kept(a, "one", other))))
    assert len([file for file in (shared / "v1/programs").rglob("*") if file.is_file()]) == 1
    assert numbered(a) == numbered(a, other)


def test_of_writers_at_the_same_time_none_is_lost(
    machine: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [machine(name) for name in "abc"]
    entries = [kept(store, text) for store, text in zip(stores, "xyz", strict=True)]
    # Every one of them has looked before any of them writes.
    monkeypatch.setattr(Exchange, "_numbered", lambda *_: iter(()))
    assert all(store.push(entry) for store, entry in zip(stores, entries, strict=True))
    monkeypatch.undo()
    assert sorted(numbered(stores[0])) == sorted(entry.program for entry in entries)


def test_there_are_only_so_many_programs_of_a_key(
    machine: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    a = machine("a")
    entries = [kept(a, str(number)) for number in range(NUMBERED + 1)]
    assert [a.push(entry) for entry in entries] == [True] * NUMBERED + [False]
    assert "already" in caplog.text


def test_a_number_that_was_removed_is_written_again(
    machine: Callable[..., Store], shared: Path
) -> None:
    a = machine("a")
    entries = [kept(a, text) for text in ("one", "two")]
    assert all(map(a.push, entries))
    at(shared, ENTRIES, f"{KEY.digest}.0").unlink()
    assert numbered(a) == []
    assert a.push(entries[0])
    assert numbered(a) == [entry.program for entry in reversed(entries)]


def test_pieces_are_pushed_once(machine: Callable[..., Store], shared: Path) -> None:
    a = machine("a")
    for name in ("ab" * 32, "cd" * 32):
        a.folder.write("pieces", name, program(name))
    assert a.push_pieces() == a.push_pieces() == 2
    assert len([file for file in (shared / "v1/pieces").rglob("*") if file.is_file()]) == 2


# --- what is asked of the wrong store -------------------------------------------------------------


def test_without_a_remote_there_is_nothing_to_push_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = kept(store, "one")
    for work in (lambda: store.push(entry), store.push_pieces, lambda: store.pull(KEY)):
        with pytest.raises(StoreError, match="expected a store with a remote"):
            work()
    store.share(entry, [])


def test_a_remote_to_read_is_not_pushed_to(machine: Callable[..., Store], shared: Path) -> None:
    shared.mkdir()
    store = machine("a", remote_policy="read")
    entry = kept(store, "one")
    for work in (lambda: store.push(entry), store.push_pieces):
        with pytest.raises(StoreError, match="may be written to"):
            work()
    store.share(entry, [])
    assert not list(shared.iterdir())


def test_what_was_removed_here_is_not_pushed(machine: Callable[..., Store], shared: Path) -> None:
    a = machine("a")
    entry = kept(a, "one")
    a.folder.remove(PROGRAMS, entry.program)
    assert not a.push(entry)
    assert numbered(a) == []


def test_a_store_says_what_its_remote_is(tmp_path: Path) -> None:
    store = Store(tmp_path, remote="https://user:secret@host/programs")
    assert repr(store) == f"Store({str(tmp_path)!r}, remote='https://host/programs')"


# --- what is wrong at the remote ------------------------------------------------------------------


def flip(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


def last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(_: bytes) -> bytes:
    return b""


def page(_: bytes) -> bytes:
    return b"<html>please log in</html>"


def longer(data: bytes) -> bytes:
    return data + b"x"


DAMAGE = (flip, last, cut, empty, page, longer)


@pytest.mark.parametrize("kind", [ENTRIES, PROGRAMS])
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_never_comes_into_the_folder(
    damage: Callable[[bytes], bytes], kind: str, machine: Callable[..., Store], shared: Path
) -> None:
    a, b = machine("a"), machine("b")
    entry = kept(a, "one")
    a.push(entry)
    path = at(shared, kind, f"{KEY.digest}.0" if kind == ENTRIES else entry.program)
    path.write_bytes(damage(path.read_bytes()))
    assert b.pull(KEY) == []
    assert list(b.folder.files()) == []
    assert sum(exchange(b).remote.problems.values()) == 1


def test_who_finds_a_program_damaged_and_has_it_publishes_it_again(
    machine: Callable[..., Store], shared: Path
) -> None:
    a, b = machine("a"), machine("b")
    entry = kept(a, "one")
    a.push(entry)
    path = at(shared, PROGRAMS, entry.program)
    whole = path.read_bytes()
    path.write_bytes(cut(whole))
    assert b.pull(KEY) == []
    kept(b, "one")  # compiled again, to the same program
    b.share(entry, [])
    assert path.read_bytes() == whole
    assert len(numbered(b)) == 1
    path.write_bytes(cut(whole))
    assert a.push(entry)  # who has not looked leaves it as it is
    assert path.read_bytes() == cut(whole)


def test_what_is_damaged_here_is_not_pushed(machine: Callable[..., Store]) -> None:
    a = machine("a")
    entry = kept(a, "one")
    path = a.folder.path(PROGRAMS, entry.program)
    path.write_bytes(flip(path.read_bytes()))
    assert not a.push(entry)
    assert numbered(a) == []
    assert len(a.folder.in_quarantine()) == 1


def test_beside_a_damaged_entry_the_others_are_found(
    machine: Callable[..., Store], shared: Path
) -> None:
    a, b = machine("a"), machine("b")
    entries = [kept(a, text) for text in ("one", "two", "three")]
    for entry in entries:
        a.push(entry)
    at(shared, ENTRIES, f"{KEY.digest}.1").write_bytes(b"")
    assert b.pull(KEY) == [entries[2], entries[0]]
    assert a.push(entries[1])
    assert b.pull(KEY) == [entries[1]]


def test_an_entry_of_another_version_is_passed_over(
    machine: Callable[..., Store], shared: Path
) -> None:
    a = machine("a")
    path = at(shared, ENTRIES, f"{KEY.digest}.0")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(container.file_parts({"entry": {"something": "else"}}, {})))
    entry = kept(a, "one")
    assert a.push(entry)
    assert numbered(a) == [entry.program]
    assert not exchange(a).remote.problems


@pytest.mark.parametrize(
    "said",
    [
        {"key": "cd" * 16},
        {"program": "../../../etc/passwd"},
        {"program": "x"},
        {"seen": "../../x"},
        {"seen": ""},
    ],
)
def test_an_entry_that_says_what_it_cannot_is_not_believed(
    said: dict[str, str], machine: Callable[..., Store], shared: Path
) -> None:
    a = machine("a")
    entry = msgspec.to_builtins(kept(a, "one"))
    path = at(shared, ENTRIES, f"{KEY.digest}.0")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(container.file_parts({"entry": {**entry, **said}}, {"seen": b"[]"})))
    assert a.pull(KEY) == []
    assert exchange(a).remote.problems


def test_a_program_under_the_name_of_another_is_not_believed(
    machine: Callable[..., Store], shared: Path
) -> None:
    a, b = machine("a"), machine("b")
    one, two = kept(a, "one"), kept(a, "two")
    assert all(map(a.push, (one, two)))
    shutil.copy(at(shared, PROGRAMS, one.program), at(shared, PROGRAMS, two.program))
    assert b.pull(KEY) == [one]
    assert b.folder.read(PROGRAMS, two.program) is None


def test_a_program_of_another_machine_is_not_brought(machine: Callable[..., Store]) -> None:
    a, b = machine("a"), machine("b")
    other = {**fingerprint.host(), "python": "2.7"}
    entry = a.keep(KEY, program("one", fingerprint=other), (), "Model")
    assert entry is not None
    assert a.push(entry)
    assert b.pull(KEY) == []
    assert list(b.folder.files()) == []
    assert not exchange(b).remote.problems


def test_an_entry_without_its_program_is_of_no_use(
    machine: Callable[..., Store], shared: Path
) -> None:
    a, b = machine("a"), machine("b")
    entry = kept(a, "one")
    a.push(entry)
    at(shared, PROGRAMS, entry.program).unlink()
    assert b.pull(KEY) == []


def test_who_waits_for_another_that_fetches_waits_no_longer_than_a_visit(
    machine: Callable[..., Store],
) -> None:
    a = machine("a", remote_timeout_s=0.3)
    first, second = exchange(a).remote.visit(), exchange(a).remote.visit()
    with exchange(a).alone(KEY.digest, first):
        started = time.monotonic()
        with exchange(a).alone(KEY.digest, second):
            assert time.monotonic() - started < 1
    assert second.left_s < 0.1 < first.left_s
