"""Compiled programs by key.

A program is an artifact's file, named by the digest that its header holds, and an entry that says
under which key it was made and what a trace found outside of the model. Several programs may have
one key: which of them is meant, if any, is decided by what each was compiled for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotstart import container
from hotstart.errors import (
    ArtifactError,
    ContractError,
    CorruptArtifact,
    IncompatibleArtifact,
    ModelMismatch,
    StoreError,
)
from hotstart.keys.records import Change, Key, Seen
from hotstart.keys.seen import changes
from hotstart.store.entries import PROGRAMS, Entries, Entry
from hotstart.store.folder import Folder, Limits, default_place, is_damage

if TYPE_CHECKING:
    from hotstart.options import MissPolicy
    from hotstart.runtime.program import Program
    from hotstart.tensors import Model

TRIED = 16
"""So many programs of one key are tried, the newest first."""

WAIT_S = 1800.0
"""How long to wait for another process that compiles the same program."""


class Found(msgspec.Struct, frozen=True):
    """What was found under a key.

    Attributes:
        program: the program that fits; None if there is none.
        reasons: why each of those that were tried before it does not, the newest first.
    """

    program: Program | None
    reasons: tuple[tuple[Change, ...], ...] = ()


class Store:
    """Where compiled programs and pieces are kept, so that they are compiled once.

    Args:
        place: a folder. Default: the environment's `HOTSTART_CACHE`, else the user's cache folder.
        max_bytes: how much it may hold; what was not used for longest goes first.
        max_files: how many files.
        max_age_days: what was not used for longer goes.
        strict: whether a place that cannot be read or written is an error; it is a warning
            otherwise, and nothing is found or kept there.
        check: whether a program is run in a process of its own before it is kept; see
            `Program.save`.
    """

    def __init__(
        self,
        place: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = Limits.bytes,
        max_files: int = Limits.files,
        max_age_days: float | None = None,
        strict: bool = False,
        check: bool = True,
    ) -> None:
        age_s = None if max_age_days is None else max_age_days * 86400
        limits = Limits(bytes=max_bytes, files=max_files, age_s=age_s)
        self.check = check
        self.folder = Folder(default_place() if place is None else place, limits, strict=strict)
        self.entries = Entries(self.folder)

    def __repr__(self) -> str:
        return f"Store({str(self.folder.root)!r})"

    def probe(self, key: Key | str) -> list[Entry]:
        """The programs of a key, the newest first. Opens none of them."""
        return self.entries.of((key if isinstance(key, str) else key.digest) + ".")

    def find(self, key: Key, model: Model, on_miss: MissPolicy) -> Found:
        """Load the program of a key that fits a model, its sources and this machine."""
        reasons: list[tuple[Change, ...]] = []
        for entry in self.probe(key)[:TRIED]:
            self.folder.used(PROGRAMS, entry.program)  # lest it be tidied away while it is compared
            changed = tuple(changes(model, entry.seen))
            if not changed:
                program, changed = self._load(entry, model, on_miss)
                if program is not None:
                    return Found(program, tuple(reasons))
            reasons.append(changed)
        return Found(None, tuple(reasons))

    def keep(
        self, key: Key, parts: Sequence[bytes], seen: tuple[Seen, ...], model: str
    ) -> Entry | None:
        """Store a program's file, then make room if there is too much; None if it cannot be."""
        program = program_name(parts)
        self._put_away_damaged(program)  # of one that is there only the entry may have been lost
        entry = Entry(key.digest, program, sum(map(len, parts)), time.time(), model, seen)
        # The program comes first, so that whoever finds the entry finds the program.
        if not self.folder.write(PROGRAMS, program, parts) or not self.entries.write(entry, key):
            return None
        self.folder.tidy()
        return entry

    def alone(self, key: Key) -> contextlib.AbstractContextManager[bool]:
        """Hold the lock of a key while its program is compiled; others wait and then load it."""
        return self.folder.lock(key.digest, WAIT_S)

    def _put_away_damaged(self, program: str) -> None:
        path = self.folder.path(PROGRAMS, program)
        try:
            _require_name(path, program)
            container.read(path)
        except ArtifactError as error:
            if is_damage(error):
                self.folder.quarantine(PROGRAMS, program, str(error))

    def _load(
        self, entry: Entry, model: Model, on_miss: MissPolicy
    ) -> tuple[Program | None, tuple[Change, ...]]:
        from hotstart._load import load

        path = self.folder.path(PROGRAMS, entry.program)
        try:
            _require_name(path, entry.program)
            program = load(path, model, on_miss=on_miss)
        except CorruptArtifact as error:
            self.folder.quarantine(PROGRAMS, entry.program, str(error))
            self.entries.remove(entry)
            return None, (("its file", "what was written", "damage"),)
        except IncompatibleArtifact as error:
            return None, tuple(error.differences)
        except ModelMismatch as error:
            return None, tuple(map(_change, error.problems))
        except (ArtifactError, ContractError) as error:
            if self.folder.is_gone(PROGRAMS, entry.program):
                self.entries.remove(entry)
                return None, (("its file", "there", "nothing"),)
            return None, (("loading it", "a program", str(error)),)
        self.entries.used(entry)
        return program, ()


def open_store(cache: str | os.PathLike[str] | Store, *, strict: bool) -> Store:
    """The store that `hotstart.compile(cache=...)` was given, as a folder or as it is.

    Raises:
        StoreError: it is neither.
    """
    if isinstance(cache, Store):
        if strict and not cache.folder.strict:
            raise StoreError(
                "strict_cache: got a hotstart.Store that is not strict, takes a folder or a "
                "hotstart.Store(..., strict=True)"
            )
        return cache
    if isinstance(cache, str | os.PathLike):
        if "://" in os.fspath(cache):
            raise StoreError(f"cache: expected a folder or a hotstart.Store, found {cache!r}")
        return Store(cache, strict=strict)
    raise StoreError(
        f"cache: expected a folder or a hotstart.Store, found a {type(cache).__qualname__}"
    )


def program_name(parts: Sequence[bytes]) -> str:
    """The name of an artifact's file: its header holds digests of all the rest."""
    return hashlib.sha256(parts[0]).hexdigest()


def _require_name(path: Path, name: str) -> None:
    """See that a file is the one that was written here, and not another whole one.

    Raises:
        CorruptArtifact: it is another.
    """
    with contextlib.suppress(OSError), path.open("rb") as file:  # loading says what is wrong
        found = program_name([file.read(container.SIGNED_BYTES)])
        if found != name:
            raise CorruptArtifact(path, "header", f"SHA-256 {name}", found)


def _change(problem: str) -> Change:
    """`layers.0.eps: expected 1e-05, found 1e-06` taken apart."""
    what, _, rest = problem.partition(": expected ")
    expected, _, found = rest.partition(", found ")
    return what, expected, found
