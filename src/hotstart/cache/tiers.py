"""A folder, and the remote that it is filled from and that gets what is new.

    entries/<2 letters>/<key>.<number>   one of the folder's entries of a key, numbered from 0
    programs/<2 letters>/<program>       as in the folder
    pieces/<2 letters>/<name>            as in the folder

The entries of a key are read from 0 upwards until there is none, and whoever has a new one writes
it under the next free number. So nothing is listed and no object ever changes: any file server will
do to read from, and of two writers at once neither takes the other's place.

What a remote gives is verified, and compared with this process, before it comes into the folder.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from hotstart.artifact import compatibility, container
from hotstart.artifact.header import HEADER_BYTES
from hotstart.artifact.trust import require_trusted_start
from hotstart.cache.entries import ENTRIES, PIECES, PROGRAMS, CacheEntry, decoded
from hotstart.cache.file_names import program_name
from hotstart.cache.folder import Folder
from hotstart.cache.remote import Remote, Visit
from hotstart.cache.signatures import untrusted
from hotstart.errors import (
    ArtifactError,
    CorruptArtifact,
    IncompatibleArtifact,
    UntrustedArtifact,
)
from hotstart.records.guards import Change, Seen

log = logging.getLogger(__name__)

NUMBERED = 16
"""So many programs of one key a remote has at most."""

_ENTRY_BYTES = 64 << 20
_PIECE_BYTES = 1 << 30
_PROGRAM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Offered:
    """An entry that a remote has.

    Attributes:
        entry: what it says.
        seen: what its program was compiled for, besides what that says.
        file: the bytes of its file, verified.
    """

    entry: CacheEntry
    seen: tuple[Seen, ...]
    file: bytes


class Exchange:
    """Exchange of programs and pieces between a folder and a remote."""

    def __init__(self, folder: Folder, remote: Remote) -> None:
        self.remote = remote
        self._folder = folder
        self._trust = folder.signatures.trust

    @contextlib.contextmanager
    def alone(self, key: str, visit: Visit) -> Iterator[None]:
        """Let one process of this machine at a time fetch what a key has; the others wait for it.

        They wait no longer than a visit may take, and then go on.
        """
        with contextlib.ExitStack() as held:
            with visit.spending():
                held.enter_context(self._folder.lock(f"{key}.remote", visit.left_s))
            yield

    def offered(self, key: str, visit: Visit) -> list[Offered]:
        """The entries of a key, the newest first. Their programs are not fetched."""
        return [offered for offered in self._numbered(key, visit) if offered is not None][::-1]

    def bring(self, offered: Offered, visit: Visit) -> tuple[Change, ...]:
        """Copy a program and its entry into the folder; nothing, or else why that is not done."""
        entry = offered.entry
        try:
            contents = self._fetched_program(entry, visit)
            if contents is None:
                return (("its file", "at the remote", "nothing"),)
            checked, data = contents
            compatibility.require_fit(checked, compare_source=True)
        except IncompatibleArtifact as error:
            return error.differences
        except UntrustedArtifact as error:
            self.remote.wrong(PROGRAMS, entry.program, error)
            return (untrusted(error),)
        except ArtifactError as error:
            self.remote.wrong(PROGRAMS, entry.program, error)
            return (("its file", "what was written", "damage"),)
        # The program comes first, so that whoever finds the entry finds the program.
        kept = self._folder.write(PROGRAMS, entry.program, [data])
        if not kept or not self._folder.write(ENTRIES, entry.name, [offered.file]):
            return (("a copy in the folder", "written", "nothing"),)
        return ()

    def piece(self, name: str, visit: Visit) -> tuple[container.Container, bytes] | None:
        """A piece, verified, and its bytes; None if there is none that can be fetched.

        Raises:
            ArtifactError: it is not whole.
        """
        data = visit.fetch(PIECES, name, _PIECE_BYTES)
        if data is None:
            return None
        where = self.remote.where(PIECES, name)
        return container.read_bytes(where, data, self._trust)[0], data

    def publish(self, entry: CacheEntry, visit: Visit) -> bool:
        """Write a program of the folder, then its entry; whether both are there now."""
        taken = list(self._numbered(entry.key, visit))
        named = any(offered and offered.entry.name == entry.name for offered in taken)
        if named and (PROGRAMS, entry.program) not in self.remote.damaged:
            return True
        program, file = self._own(PROGRAMS, entry.program), self._own(ENTRIES, entry.name)
        if program is None or file is None:
            return False
        if not self._publish(PROGRAMS, entry.program, program, visit):
            return False
        if named:
            return True
        useless = [number for number, offered in enumerate(taken) if offered is None]
        wrong = [n for n in useless if (ENTRIES, f"{entry.key}.{n}") in self.remote.damaged]
        for number in (*range(len(taken), NUMBERED), *wrong):
            done = visit.publish(ENTRIES, f"{entry.key}.{number}", [file])
            if done != "there":  # else another writer was faster, and the next number may be free
                return done == "written"
        log.warning("%s has %d programs of the key %s already", self.remote, NUMBERED, entry.key)
        return False

    def publish_pieces(self, names: Iterable[str], visit: Visit) -> int:
        """Write pieces of the folder; how many of them are there now."""
        count = 0
        for name in names:
            data = self._own(PIECES, name)
            if data is not None and self._publish(PIECES, name, data, visit):
                count += 1
        return count

    # --- how --------------------------------------------------------------------------------------

    def _publish(self, kind: str, name: str, data: bytes, visit: Visit) -> bool:
        """Write an object; whether it is there now, signed as it has to be."""
        done = visit.publish(kind, name, [data])
        if done == "there" and self._is_untrusted(kind, name, visit):
            done = visit.publish(kind, name, [data])
        return done != "failed"

    def _is_untrusted(self, kind: str, name: str, visit: Visit) -> bool:
        """Tell whether an object is not signed as it has to be; it is noted as wrong then."""
        if self._trust is None:
            return False
        start = visit.begins_with(kind, name, HEADER_BYTES)
        if start is None:
            return False
        try:
            require_trusted_start(self.remote.where(kind, name), start, self._trust)
        except ArtifactError as error:
            self.remote.wrong(kind, name, error)
            return True
        return False

    def _own(self, kind: str, name: str) -> bytes | None:
        """A file of the folder, verified; None if there is none that is whole."""
        data = self._folder.read(kind, name)
        if data is None:
            return None
        try:
            container.read_bytes(str(self._folder.path(kind, name)), data, self._trust)
        except UntrustedArtifact as error:
            log.warning("not published: %s", error)
            return None
        except ArtifactError as error:
            self._folder.quarantine(kind, name, str(error))
            return None
        return data

    def _numbered(self, key: str, visit: Visit) -> Iterator[Offered | None]:
        """The entries of a key by number; None for those that are of no use."""
        for number in range(NUMBERED):
            name = f"{key}.{number}"
            try:
                data = visit.fetch(ENTRIES, name, _ENTRY_BYTES)
                if data is None:
                    return
                yield self._checked_entry(key, name, data)
            except ArtifactError as error:
                self.remote.wrong(ENTRIES, name, error)
                yield None

    def _checked_entry(self, key: str, name: str, data: bytes) -> Offered | None:
        """Read the file of an entry; None if it is of another version.

        Raises:
            ArtifactError: it is damaged, or says what it cannot.
        """
        where = self.remote.where(ENTRIES, name)
        contents = container.read_bytes(where, data, self._trust)[0]
        try:
            entry, seen = decoded(contents)
        except msgspec.MsgspecError as error:
            log.debug("%s is an entry of another version of hotstart: %s", where, error)
            return None
        if entry.key != key or not _PROGRAM.fullmatch(entry.program):
            found = f"{entry.program!r} of {entry.key!r}"
            raise CorruptArtifact(where, "entry", f"a program of {key!r}", found)
        return Offered(entry, seen, data)

    def _fetched_program(
        self, entry: CacheEntry, visit: Visit
    ) -> tuple[container.Container, bytes] | None:
        """A program, verified.

        Raises:
            ArtifactError: it is not the one that the entry names.
        """
        data = visit.fetch(PROGRAMS, entry.program, entry.bytes)
        if data is None:
            return None
        where = self.remote.where(PROGRAMS, entry.program)
        every = container.read_bytes(where, data, self._trust)
        contents = container.pick(every, compatibility.best_that_fits)
        named = program_name(contents.signed)
        if named != entry.program:
            raise CorruptArtifact(where, "header", f"SHA-256 {entry.program}", named)
        return contents, data
