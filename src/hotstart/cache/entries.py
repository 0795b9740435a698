"""Index stored programs, to compare them without opening them. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import zlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from hotstart.artifact import container
from hotstart.cache.folder import Folder, is_damage
from hotstart.errors import ArtifactError, CorruptArtifact, UntrustedArtifact
from hotstart.records.guards import ProgramKey, Seen

log = logging.getLogger(__name__)

ENTRIES = "entries"
PROGRAMS = "programs"
PIECES = "pieces"

T = TypeVar("T")


class CacheEntry(msgspec.Struct, frozen=True):
    """A stored program.

    Attributes:
        key: the digest of its key.
        program: the name of its file.
        bytes: the size of that.
        created: when it was stored, in seconds since the epoch.
        model: the class of the model, for people.
        seen: a hash of what it was compiled for, besides what its file says: `Entries.seen`.
    """

    key: str
    program: str
    bytes: int
    created: float
    model: str
    seen: str

    @property
    def name(self) -> str:
        """The name of its own file: what was seen may differ where the program is the same."""
        return f"{self.key}.{self.program}.{self.seen}"


class _EntryManifest(msgspec.Struct):
    entry: CacheEntry


_ENTRY = msgspec.json.Decoder(_EntryManifest)
_SEEN = msgspec.json.Decoder(tuple[Seen, ...])


def hash_of(seen: tuple[Seen, ...]) -> str:
    """The hash that an entry has of what was seen."""
    return _hash(msgspec.json.encode(seen))


def decoded(contents: container.Container) -> tuple[CacheEntry, tuple[Seen, ...]]:
    """Read the file of an entry.

    Raises:
        msgspec.MsgspecError: nothing that this version of hotstart knows.
        CorruptArtifact: what was seen is another entry's.
    """
    entry = _ENTRY.decode(contents.manifest).entry
    seen = contents.blobs.get("seen", b"")
    if seen and _hash(seen) != entry.seen:
        raise CorruptArtifact(contents.file, "seen", f"the hash {entry.seen}", _hash(seen))
    return entry, _SEEN.decode(seen)


def _hash(written: bytes | memoryview) -> str:
    return hashlib.blake2b(written, digest_size=8).hexdigest()


class Entries:
    """The entries of a folder; each is a file, and never changes."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._signatures = folder.signatures

    def of(self, key: str) -> list[CacheEntry]:
        """Those of a key, or of all keys that begin so, the newest first."""
        return self._sorted(self._folder.names(ENTRIES, key))

    def all(self) -> list[CacheEntry]:
        """Every entry, the newest first."""
        return self._sorted(self._folder.names(ENTRIES))

    def recent(self, count: int) -> list[CacheEntry]:
        """Those that were used last, the newest first; no others are opened."""
        files = sorted(self._folder.files(ENTRIES), key=lambda stored: -stored.used)
        return self._sorted(stored.name for stored in files[:count])

    def write(self, entry: CacheEntry, key: ProgramKey, seen: tuple[Seen, ...]) -> bool:
        """Write an entry, with what its key was made of and what was seen; whether it is there."""
        self._remove_what_is_none(entry.name)
        described = zlib.compress(msgspec.json.encode(key.parts))
        blobs = {"seen": msgspec.json.encode(seen), "key": described}
        parts = container.file_parts(
            {"entry": msgspec.to_builtins(entry)}, blobs, self._signatures.sign
        )
        return self._folder.write(ENTRIES, entry.name, parts)

    def seen(self, entry: CacheEntry) -> tuple[Seen, ...] | None:
        """Read what a program was compiled for, besides what is in its file; None if not there.

        It may be more than all the rest, so that listing entries leaves it out.
        """
        trust = self._signatures.trust
        read = self._try(entry.name, lambda path: decoded(container.read(path, trust)))
        return None if read is None else read[1]

    def pin(self, entry: CacheEntry) -> bool:
        """Keep an entry and its program whatever the limits; whether that is so now."""
        both = [self._folder.pin(kind, name) for kind, name in self._files(entry)]
        return all(both)

    def unpin(self, entry: CacheEntry) -> bool:
        """Let limits count again for an entry, and for its program; whether they did not.

        A program that another pinned entry has stays pinned.
        """
        shared = (name for name in self._folder.pinned(ENTRIES) if name != entry.name)
        if any(name.split(".")[1] == entry.program for name in shared):
            return self._folder.unpin(ENTRIES, entry.name)
        both = [self._folder.unpin(kind, name) for kind, name in self._files(entry)]
        return any(both)

    def pinned(self) -> set[str]:
        """The names of the entries that are pinned."""
        return self._folder.pinned(ENTRIES)

    def remove(self, entry: CacheEntry) -> bool:
        """Remove an entry; whether it was there. Its program is another file."""
        self.unpin(entry)
        return self._folder.remove(ENTRIES, entry.name)

    def used(self, entry: CacheEntry) -> None:
        """Note that an entry is being used."""
        self._folder.used(ENTRIES, entry.name)

    def key_of(self, entry: CacheEntry) -> ProgramKey:
        """An entry's key; without parts if they cannot be read."""
        parts: dict[str, str] = {}
        with contextlib.suppress(ArtifactError, LookupError, zlib.error, msgspec.MsgspecError):
            blob = container.read(
                self._folder.path(ENTRIES, entry.name), self._signatures.trust
            ).blobs["key"]
            parts = msgspec.json.decode(zlib.decompress(blob), type=dict[str, str])
        return ProgramKey(entry.key, parts)

    def _files(self, entry: CacheEntry) -> tuple[tuple[str, str], tuple[str, str]]:
        return (ENTRIES, entry.name), (PROGRAMS, entry.program)

    def _remove_what_is_none(self, name: str) -> None:
        """Remove what lies in an entry's place: no other version has its key."""
        with contextlib.suppress(ArtifactError):
            try:
                decoded(container.read(self._folder.path(ENTRIES, name), self._signatures.trust))
            except (msgspec.MsgspecError, UntrustedArtifact):
                self._folder.remove(ENTRIES, name)

    def _sorted(self, names: Iterable[str]) -> list[CacheEntry]:
        found = (self._read(name) for name in names)
        return sorted(filter(None, found), key=lambda entry: -entry.created)

    def _read(self, name: str) -> CacheEntry | None:
        def read(path: str) -> CacheEntry:
            entry = _ENTRY.decode(container.read_manifest(path, trust=self._signatures.trust)).entry
            if entry.name != name:
                # Whole, but another program's: it must not be found under this one's key.
                raise CorruptArtifact(path, "manifest", f"the entry {name}", entry.name)
            return entry

        return self._try(name, read)

    def _try(self, name: str, read: Callable[[str], T]) -> T | None:
        """Read an entry's file; None if that cannot be, and a damaged one is put away."""
        path = self._folder.path_text(ENTRIES, name)
        try:
            return read(path)
        except msgspec.MsgspecError as error:
            log.debug("%s is an entry of another version of hotstart: %s", path, error)
        except ArtifactError as error:
            if is_damage(error):
                self._folder.quarantine(ENTRIES, name, str(error))
            elif not self._folder.is_gone(ENTRIES, name):  # else somebody removed it meanwhile
                log.warning("%s", error)
        return None
