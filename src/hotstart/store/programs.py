"""Compiled programs by key.

A program is an artifact's file, named by the digest that its header holds, and an entry that says
under which key it was made and what a trace found outside of the model. Several programs may have
one key: which of them is meant, if any, is decided by what each was compiled for.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
import zlib
from collections.abc import Iterator, Sequence
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
from hotstart.ir import Seen
from hotstart.keys.seen import Change, changes
from hotstart.store.folder import Folder, Limits

if TYPE_CHECKING:
    from hotstart.keys.program import Key
    from hotstart.options import MissPolicy
    from hotstart.runtime.program import Program
    from hotstart.tensors import Model

log = logging.getLogger(__name__)

OBJECTS, ENTRIES = "objects", "entries"
TRIED = 16
"""So many programs of one key are tried, the newest first."""

WAIT_S = 1800.0
"""How long to wait for another process that compiles the same program."""


class Entry(msgspec.Struct, frozen=True):
    """What is known of a stored program without opening it.

    Attributes:
        key: the digest of its key.
        program: the name of its file.
        bytes: the size of that.
        created: when it was stored, in seconds since the epoch.
        model: the class of the model, for people.
        seen: what it was compiled for, besides what its file says.
    """

    key: str
    program: str
    bytes: int
    created: float
    model: str
    seen: tuple[Seen, ...]


class _Parts(msgspec.Struct):
    entry: Entry


class Found(msgspec.Struct, frozen=True):
    """What was found under a key.

    Attributes:
        program: the program that fits; None if there is none.
        reasons: why each of the others does not, the newest first.
    """

    program: Program | None
    reasons: tuple[tuple[Change, ...], ...] = ()


class Store:
    """Where compiled programs are kept, so that they are compiled once.

    Args:
        place: a folder. Default: the environment's `HOTSTART_CACHE`, else the user's cache folder.
        limits: how much it may hold; what was not used for longest goes first.
        strict: whether a place that cannot be read or written is an error; it is a warning
            otherwise, and nothing is found or kept there.
        check: whether a program is run in a process of its own before it is kept; see
            `Program.save`.
    """

    def __init__(
        self,
        place: str | os.PathLike[str] | None = None,
        *,
        limits: Limits | None = None,
        strict: bool = False,
        check: bool = True,
    ) -> None:
        self.check = check
        self.folder = Folder(default_place() if place is None else place, limits, strict=strict)

    def __repr__(self) -> str:
        return f"Store({str(self.folder.root)!r})"

    def probe(self, key: Key | str) -> list[Entry]:
        """The programs of a key, the newest first. Opens none of them."""
        digest = key if isinstance(key, str) else key.digest
        names = self.folder.names(ENTRIES, f"{digest}.")
        found = [entry for name in names if (entry := self._entry(name)) is not None]
        return sorted(found, key=lambda entry: -entry.created)

    def find(self, key: Key, model: Model, on_miss: MissPolicy) -> Found:
        """Load the program of a key that fits a model, its sources and this machine."""
        reasons: list[tuple[Change, ...]] = []
        for entry in self.probe(key)[:TRIED]:
            changed = tuple(changes(model, entry.seen))
            if not changed:
                program, changed = self._load(entry, model, on_miss)
                if program is not None:
                    self.folder.used(ENTRIES, entry_name(entry))
                    return Found(program, tuple(reasons))
            reasons.append(changed)
        return Found(None, tuple(reasons))

    def keep(
        self, key: Key, parts: Sequence[bytes], seen: tuple[Seen, ...], model: str
    ) -> Entry | None:
        """Store a program's file; None if it cannot be."""
        program = program_name(parts)
        size = sum(map(len, parts))
        entry = Entry(key.digest, program, size, time.time(), model, seen)
        if not self.folder.write(OBJECTS, program, parts):
            return None
        described = zlib.compress(msgspec.json.encode(key.parts))
        written = container.pack({"entry": msgspec.to_builtins(entry)}, {"key": described})
        # An entry that a program was found by is newer than the program, and goes after it.
        if not self.folder.write(ENTRIES, entry_name(entry), written):
            return None
        self.folder.tidy()
        return entry

    def parts_of(self, entry: Entry) -> dict[str, str]:
        """What the key of a stored program was made of; empty if that cannot be read."""
        path = self.folder.path(ENTRIES, entry_name(entry))
        with contextlib.suppress(ArtifactError, zlib.error, msgspec.DecodeError):
            blob = container.read(path).blobs["key"]
            return msgspec.json.decode(zlib.decompress(blob), type=dict[str, str])
        return {}

    def entries(self) -> Iterator[Entry]:
        """Every stored program."""
        for name in self.folder.names(ENTRIES):
            entry = self._entry(name)
            if entry is not None:
                yield entry

    def alone(self, key: Key) -> contextlib.AbstractContextManager[bool]:
        """Hold the lock of a key while its program is compiled; others wait and then load it."""
        return self.folder.lock(key.digest, WAIT_S)

    def _entry(self, name: str) -> Entry | None:
        path = self.folder.path(ENTRIES, name)
        try:
            text = container.read_manifest(path)
            return msgspec.json.decode(text, type=_Parts).entry
        except (CorruptArtifact, IncompatibleArtifact, msgspec.DecodeError) as error:
            self.folder.quarantine(ENTRIES, name, str(error))
        except ArtifactError as error:
            if path.exists():
                log.warning("%s", error)
        return None

    def _load(
        self, entry: Entry, model: Model, on_miss: MissPolicy
    ) -> tuple[Program | None, tuple[Change, ...]]:
        from hotstart._load import load

        path = self.folder.path(OBJECTS, entry.program)
        try:
            program = load(path, model, on_miss=on_miss)
        except CorruptArtifact as error:
            self.folder.quarantine(OBJECTS, entry.program, str(error))
            self.folder.remove(ENTRIES, entry_name(entry))
            return None, (("its file", "what was written", "damage"),)
        except IncompatibleArtifact as error:
            return None, tuple(error.differences)
        except ModelMismatch as error:
            return None, tuple(_change(problem) for problem in error.problems)
        except (ArtifactError, ContractError) as error:
            if not path.exists():
                self.folder.remove(ENTRIES, entry_name(entry))
                return None, (("its file", "to be there", "nothing"),)
            return None, (("loading it", "a program", str(error)),)
        self.folder.used(OBJECTS, entry.program)
        return program, ()


def default_place() -> Path:
    """The folder that the environment names, else the user's own for caches."""
    named = os.environ.get("HOTSTART_CACHE")
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("hotstart", appauthor=False))


def open_store(cache: str | os.PathLike[str] | Store, *, strict: bool) -> Store:
    """The store that `hotstart.compile(cache=...)` was given, as a folder or as it is.

    Raises:
        StoreError: it is neither.
    """
    if isinstance(cache, Store):
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


def entry_name(entry: Entry) -> str:
    """The name of the file that says what an artifact is for."""
    return f"{entry.key}.{entry.program}"


def _change(problem: str) -> Change:
    """`layers.0.eps: expected 1e-05, found 1e-06` taken apart."""
    what, _, rest = problem.partition(": expected ")
    expected, _, found = rest.partition(", found ")
    return what, expected, found
