"""A cache with something wrong in it costs a build, and is never wrong."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hotstart
from hotstart import Store
from tests.integration.caching import Patch, asked, model


def stored_files(store: Store) -> list[Path]:
    return [store.folder.path(file.kind, file.name) for file in store.folder.files()]


FORMAT_AT = 8
"""Where in a file the number of its format is."""


def damaged(data: bytes, damage: str) -> bytes:
    if damage in ("cut", "empty"):
        return data[: len(data) // 2] if damage == "cut" else b""
    at = FORMAT_AT if damage == "format" else len(data) // 2
    return data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :]


@pytest.mark.thorough
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "format"])
def test_a_damaged_file_is_never_used(damage: str, tmp_path: Path) -> None:
    filled = Store(tmp_path / "filled", check=False)
    asked(filled, model())
    for number, file in enumerate(sorted(stored_files(filled))):
        copied = tmp_path / f"copy_{number}"
        shutil.copytree(filled.folder.root, copied)
        target = copied / file.relative_to(filled.folder.root)
        target.write_bytes(damaged(target.read_bytes(), damage))
        store = Store(copied, check=False)
        found = asked(store, model())  # compares with the model
        expected = "loaded" if file.parent.parent.name == "pieces" else "compiled"
        assert found == expected
        if found == "compiled":
            assert store.folder.in_quarantine()
            assert asked(store, model()) == "loaded"


def test_a_damaged_piece_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    (piece, *_) = [file for file in store.folder.files() if file.kind == "pieces"]
    path = store.folder.path(piece.kind, piece.name)
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, "format"))
    asked(store, model(), extra_key="another")
    assert path.read_bytes() == whole
    assert store.folder.in_quarantine() == [f"pieces-{piece.name}"]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["programs", "entries", "pieces"])
def test_a_whole_file_in_the_place_of_another_is_never_used(
    kind: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    monkeypatch.setenv("HOTSTART_TEST_DOUBLE", "1")  # the same key, but another program
    asked(store, model())
    one, other, *_ = (file for file in stored_files(store) if file.parent.parent.name == kind)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    asked(store, model(), extra_key="another")  # needs the pieces
    for double in ("1", None, ""):  # empty is not the same as not set, and needs the same pieces
        monkeypatch.delenv("HOTSTART_TEST_DOUBLE", raising=False)
        if double is not None:
            monkeypatch.setenv("HOTSTART_TEST_DOUBLE", double)
        asked(store, model())
        assert asked(store, model()) == "loaded"
    assert len(store.folder.in_quarantine()) == 2


@pytest.mark.thorough
def test_a_damaged_program_whose_entry_is_lost_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    for file in stored_files(store):
        file.write_bytes(damaged(file.read_bytes(), "flip" if "programs" in str(file) else "empty"))
    assert asked(store, model()) == "compiled"
    assert asked(store, model()) == "loaded"


@pytest.mark.thorough
def test_no_room_to_check_a_program_is_a_warning(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", no_room)
    assert asked(Store(tmp_path), model()) == "compiled"
    assert "cannot be kept" in caplog.text
    monkeypatch.undo()
    assert asked(Store(tmp_path, check=False), model()) == "compiled"
    assert asked(Store(tmp_path), model()) == "loaded"


@pytest.mark.thorough
def test_an_entry_without_its_program_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    for file in store.folder.files():
        if file.kind == "programs":
            store.folder.remove(file.kind, file.name)
    assert asked(store, model()) == "compiled"
    assert asked(store, model()) == "loaded"


def test_a_cache_that_cannot_be_used_is_a_warning_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert asked(Store(tmp_path / "file", check=False), model()) == "compiled"
    with pytest.raises(hotstart.StoreError):
        asked(Store(tmp_path / "file", strict=True), model())


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["programs", "entries", "pieces"])
def test_what_others_may_not_look_at_is_compiled(
    kind: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    before = stored_files(store)

    def refused(function: Callable[..., Any]) -> Callable[..., Any]:
        def work(path: Any, *args: Any, **kwargs: Any) -> Any:
            if f"/{kind}/" in str(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return function(path, *args, **kwargs)

        return work

    with monkeypatch.context() as patch:  # root may look at everything
        for owner, name in ((os, "open"), (os, "stat"), (os, "listdir"), (io, "open")):
            patch.setattr(owner, name, refused(getattr(owner, name)))
        asked(Store(tmp_path, check=False), model())
    assert set(before) <= set(stored_files(store))
    assert asked(store, model()) == "loaded"


@pytest.mark.parametrize("cache", [3, "ftp://host/programs"])
def test_what_is_no_place_is_refused(cache: Any) -> None:
    with pytest.raises(hotstart.StoreError, match="expected a"):
        asked(cache, model())
