"""Entries of stored programs: read whole, put away, or left to who understands them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hotstart.artifact import container
from hotstart.cache.entries import ENTRIES, CacheEntry, Entries, hash_of
from hotstart.cache.folder import Folder
from hotstart.records.guards import Guard, ProgramKey, Seen

KEY = ProgramKey("ab" * 16, {"torch": "2.13.0"})
SEEN = (Seen("python", "shop", Guard((("attribute", "TABLE"), ("item", 3)), "value", "1")),)
ENTRY = CacheEntry(KEY.digest, "cd" * 32, 123, 1000.0, "Model", hash_of(SEEN))


FORMAT_AT = 8
"""Where in a file the number of its format is."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_what_is_written_is_read(folder: Folder) -> None:
    entries = Entries(folder)
    assert entries.of(KEY.digest) == []
    assert entries.write(ENTRY, KEY, SEEN)
    assert entries.of(KEY.digest) == entries.of(KEY.digest[:5]) == entries.all() == [ENTRY]
    assert entries.key_of(ENTRY) == KEY
    assert entries.seen(ENTRY) == SEEN


def test_one_program_may_have_been_compiled_for_several_things(folder: Folder) -> None:
    entries = Entries(folder)
    seen = (replace(SEEN[0], guard=replace(SEEN[0].guard, text="2")),)
    other = replace(ENTRY, seen=hash_of(seen), created=1001.0)
    entries.write(ENTRY, KEY, SEEN)
    entries.write(other, KEY, seen)
    assert entries.of(KEY.digest) == [other, ENTRY]
    assert list(map(entries.seen, [other, ENTRY])) == [seen, SEEN]


def test_the_newest_comes_first(folder: Folder) -> None:
    entries = Entries(folder)
    for number, created in enumerate((5.0, 7.0, 6.0)):
        program = f"{number:064x}"
        entries.write(replace(ENTRY, program=program, created=created), KEY, SEEN)
    assert [entry.created for entry in entries.of(KEY.digest)] == [7.0, 6.0, 5.0]


@pytest.mark.parametrize("at", [0, FORMAT_AT, 200])
def test_a_damaged_entry_is_put_away(at: int, folder: Folder) -> None:
    entries = Entries(folder)
    entries.write(ENTRY, KEY, SEEN)
    path = folder.path(ENTRIES, ENTRY.name)
    data = bytearray(path.read_bytes())
    data[at] ^= 2
    path.write_bytes(data)
    assert entries.all() == []
    assert len(folder.in_quarantine()) == 1


def test_an_entry_under_the_name_of_another_is_put_away(folder: Folder) -> None:
    entries = Entries(folder)
    entries.write(ENTRY, KEY, SEEN)
    other = ProgramKey("ef" * 16, {})
    name = replace(ENTRY, key=other.digest).name
    folder.write(ENTRIES, name, [folder.path(ENTRIES, ENTRY.name).read_bytes()])
    assert entries.of(other.digest) == []
    assert folder.in_quarantine() == [f"{ENTRIES}-{name}"]
    assert entries.all() == [ENTRY]


def test_what_was_seen_is_verified_when_it_is_read(folder: Folder) -> None:
    entries = Entries(folder)
    entries.write(ENTRY, KEY, SEEN)
    path = folder.path(ENTRIES, ENTRY.name)
    path.write_bytes(path.read_bytes().replace(b'"TABLE"', b'"TABEL"'))
    assert entries.all() == [ENTRY]
    assert entries.seen(ENTRY) is None
    assert folder.in_quarantine() == [f"{ENTRIES}-{ENTRY.name}"]
    assert entries.write(ENTRY, KEY, SEEN)
    assert entries.seen(ENTRY) == SEEN


def test_what_was_seen_for_another_program_is_not_believed(folder: Folder) -> None:
    entries = Entries(folder)
    entries.write(ENTRY, KEY, (replace(SEEN[0], guard=replace(SEEN[0].guard, text="2")),))
    assert entries.seen(ENTRY) is None
    assert folder.in_quarantine() == [f"{ENTRIES}-{ENTRY.name}"]


def test_an_entry_of_another_version_is_left_alone(folder: Folder) -> None:
    folder.write(ENTRIES, ENTRY.name, container.file_parts({"entry": {"something": "else"}}, {}))
    assert Entries(folder).all() == []
    assert folder.in_quarantine() == []
    assert folder.path(ENTRIES, ENTRY.name).exists()


def test_what_lies_in_the_place_of_an_entry_is_replaced(folder: Folder) -> None:
    folder.write(ENTRIES, ENTRY.name, container.file_parts({"no": "entry"}, {}))
    assert Entries(folder).write(ENTRY, KEY, SEEN)
    assert Entries(folder).all() == [ENTRY]


def test_an_entry_that_is_removed_is_gone(folder: Folder) -> None:
    entries = Entries(folder)
    entries.write(ENTRY, KEY, SEEN)
    assert entries.remove(ENTRY)
    assert not entries.remove(ENTRY)
    assert entries.all() == []
    assert entries.key_of(ENTRY) == ProgramKey(KEY.digest, {})
