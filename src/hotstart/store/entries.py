"""What is known of stored programs without opening them. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import zlib
from collections.abc import Iterable

import msgspec

from hotstart import container
from hotstart.errors import ArtifactError, CorruptArtifact
from hotstart.keys.records import Key, Seen
from hotstart.store.folder import Folder, is_damage

log = logging.getLogger(__name__)

ENTRIES = "entries"
PROGRAMS = "programs"
PIECES = "pieces"


class Entry(msgspec.Struct, frozen=True):
    """A stored program.

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

    @property
    def name(self) -> str:
        """The name of its own file: what was seen may differ where the program is the same."""
        seen = hashlib.blake2b(msgspec.json.encode(self.seen), digest_size=8).hexdigest()
        return f"{self.key}.{self.program}.{seen}"


class _Manifest(msgspec.Struct):
    entry: Entry


_DECODER = msgspec.json.Decoder(_Manifest)


def decoded(manifest: bytes) -> Entry:
    """The entry that the manifest of its file says.

    Raises:
        msgspec.MsgspecError: it says none that this version of hotstart knows.
    """
    return _DECODER.decode(manifest).entry


class Entries:
    """The entries of a folder; each is a file, and never changes."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def of(self, key: str) -> list[Entry]:
        """Those of a key, or of all keys that begin so, the newest first."""
        return self._sorted(self._folder.names(ENTRIES, key))

    def all(self) -> list[Entry]:
        """Every entry, the newest first."""
        return self._sorted(self._folder.names(ENTRIES))

    def recent(self, count: int) -> list[Entry]:
        """Those that were used last, the newest first; no others are opened."""
        files = sorted(self._folder.files(ENTRIES), key=lambda stored: -stored.used)
        return self._sorted(stored.name for stored in files[:count])

    def write(self, entry: Entry, key: Key) -> bool:
        """Write an entry, with what its key was made of; whether it is there now."""
        self._remove_what_is_none(entry.name)
        described = zlib.compress(msgspec.json.encode(key.parts))
        parts = container.pack({"entry": msgspec.to_builtins(entry)}, {"key": described})
        return self._folder.write(ENTRIES, entry.name, parts)

    def pin(self, entry: Entry) -> bool:
        """Keep an entry and its program whatever the limits; whether that is so now."""
        both = [self._folder.pin(kind, name) for kind, name in self._files(entry)]
        return all(both)

    def unpin(self, entry: Entry) -> bool:
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

    def remove(self, entry: Entry) -> bool:
        """Remove an entry; whether it was there. Its program is another file."""
        self.unpin(entry)
        return self._folder.remove(ENTRIES, entry.name)

    def used(self, entry: Entry) -> None:
        """Note that an entry is being used."""
        self._folder.used(ENTRIES, entry.name)

    def key_of(self, entry: Entry) -> Key:
        """An entry's key; without parts if they cannot be read."""
        parts: dict[str, str] = {}
        with contextlib.suppress(ArtifactError, LookupError, zlib.error, msgspec.MsgspecError):
            blob = container.read(self._folder.path(ENTRIES, entry.name)).blobs["key"]
            parts = msgspec.json.decode(zlib.decompress(blob), type=dict[str, str])
        return Key(entry.key, parts)

    def _files(self, entry: Entry) -> tuple[tuple[str, str], tuple[str, str]]:
        return (ENTRIES, entry.name), (PROGRAMS, entry.program)

    def _remove_what_is_none(self, name: str) -> None:
        """Remove what lies in an entry's place: no other version has its key."""
        with contextlib.suppress(ArtifactError):
            try:
                decoded(container.read_manifest(self._folder.path(ENTRIES, name)))
            except msgspec.MsgspecError:
                self._folder.remove(ENTRIES, name)

    def _sorted(self, names: Iterable[str]) -> list[Entry]:
        found = (self._read(name) for name in names)
        return sorted(filter(None, found), key=lambda entry: -entry.created)

    def _read(self, name: str) -> Entry | None:
        path = self._folder.path_text(ENTRIES, name)
        try:
            entry = decoded(container.read_manifest(path))
            if entry.name == name:
                return entry
            # Whole, but another program's: it must not be found under this one's key.
            raise CorruptArtifact(path, "manifest", f"the entry {name}", entry.name)
        except msgspec.MsgspecError as error:
            log.debug("%s is an entry of another version of hotstart: %s", path, error)
        except ArtifactError as error:
            if is_damage(error):
                self._folder.quarantine(ENTRIES, name, str(error))
            elif not self._folder.is_gone(ENTRIES, name):  # else somebody removed it meanwhile
                log.warning("%s", error)
        return None
