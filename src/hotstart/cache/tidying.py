"""Sum up what a folder holds, and remove what is too much."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hotstart.artifact import disk
from hotstart.cache import locks
from hotstart.cache.file_names import LOCKS, PINS, QUARANTINE, is_name, place_of

GRACE_S = 60.0
"""A file that was used so recently is not removed: somebody may be about to open it."""

LEFTOVER_S = 3600.0
"""What a writer left unfinished for so long, it will not finish."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a folder. The files that were not used for longest go first.

    Attributes:
        bytes: of all files together.
        files: how many.
        age_s: seconds since a file was last used; None: no limit.
    """

    bytes: int = 20 << 30
    files: int = 200_000
    age_s: float | None = None


LIMITS = Limits()
"""What a folder may hold if nobody says otherwise."""


class Stored(msgspec.Struct, frozen=True):
    """A file of a folder.

    Attributes:
        kind: what it is for.
        name: unique among those of its kind.
        bytes: its size.
        used: when it was last used, in seconds since the epoch, by the clock of the file system.
    """

    kind: str
    name: str
    bytes: int
    used: float


class Tidied(msgspec.Struct, frozen=True):
    """Result of tidying up.

    Attributes:
        removed: the files that were removed because of limits.
        leftovers: how many unfinished files of killed writers were removed.
        kept_bytes: the size of all files that are left.
        kept_files: how many.
    """

    removed: tuple[Stored, ...]
    leftovers: int
    kept_bytes: int
    kept_files: int


def files(base: Path, kind: str = "") -> Iterator[Stored]:
    """Every file of a folder, or every one of a kind, in no order.

    Raises:
        OSError: it cannot be listed.
    """
    for folder in _folders(base, kind):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                info = _stat(entry) if is_name(entry.name) else None
                if info is not None:
                    yield Stored(folder.parent.name, entry.name, info.st_size, info.st_mtime)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except FileNotFoundError:
        return None


def tidy(base: Path, limits: Limits, room: int) -> Tidied:
    """Remove leftovers, and what was not used for longest; see `Folder.tidy`.

    Raises:
        OSError: the folder cannot be listed.
    """
    now = _now(base)
    leftovers = sum(unlink(file) for file in _unfinished(base, now))
    _remove_locks(base, now)
    found = sorted(files(base), key=lambda stored: stored.used)
    pinned = {file.name for file in _inside(base / PINS)}
    total, count = sum(stored.bytes for stored in found), len(found)
    target = min(limits.bytes, total - room if room else limits.bytes)
    removed: list[Stored] = []
    for stored in found:
        age = now - stored.used
        old = limits.age_s is not None and age > limits.age_s
        if not old and total <= target and count <= limits.files:
            continue
        if f"{stored.kind}-{stored.name}" in pinned:
            continue
        if age < GRACE_S or not _remove_unused(base, stored, now):
            continue
        removed.append(stored)
        total, count = total - stored.bytes, count - 1
    return Tidied(tuple(removed), leftovers, total, count)


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _folders(base: Path, of_kind: str = "") -> Iterator[Path]:
    for kind in [base / of_kind] if of_kind else _inside(base):
        if kind.name not in (QUARANTINE, LOCKS, PINS):
            yield from _inside(kind)


def _unfinished(base: Path, now: float) -> Iterator[Path]:
    for folder in _folders(base):
        with contextlib.suppress(OSError):
            for file in _inside(folder):
                if file.name.startswith(disk.TEMPORARY) and _is_older(file, now):
                    yield file


def _remove_locks(base: Path, now: float) -> None:
    for file in _inside(base / LOCKS):
        if _is_older(file, now):
            with contextlib.suppress(OSError):
                locks.remove(file)


def _is_older(file: Path, now: float) -> bool:
    try:
        return now - file.stat().st_mtime > LEFTOVER_S
    except OSError:
        return False


def _remove_unused(base: Path, stored: Stored, now: float) -> bool:
    """Remove a file unless somebody has used it since it was listed; whether it was removed."""
    path = base.parent / place_of(stored.kind, stored.name)
    try:
        unused = now - path.stat().st_mtime >= GRACE_S
    except OSError:
        return False
    return unused and unlink(path)


def unlink(file: Path) -> bool:
    """Remove a file; whether it was there, and could be removed."""
    try:
        file.unlink()
    except OSError:
        return False
    return True


def _now(base: Path) -> float:
    """The time by the clock of the file system, which may be another machine's."""
    probe = base / f"{disk.TEMPORARY}{os.urandom(8).hex()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now
