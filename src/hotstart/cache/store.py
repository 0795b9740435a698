"""Compiled programs by key, in a folder and at a remote.

A program is an artifact's file, named by the digest of what its header says, and an entry that says
under which key it was made and what a trace found outside of the model. Several programs may have
one key: which of them is meant, if any, is decided in `stale`, by what each was compiled for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hotstart.artifact import container
from hotstart.cache.entries import ENTRIES, PIECES, PROGRAMS, CacheEntry, Entries, hash_of
from hotstart.cache.file_names import is_key, program_name, require_program
from hotstart.cache.folder import Folder, default_place, is_damage
from hotstart.cache.signatures import signatures_of
from hotstart.cache.stale import FoundProgram, Refused, find_fitting, loaded
from hotstart.cache.tidying import LIMITS, Limits
from hotstart.errors import ArtifactError, StoreError
from hotstart.events import Clock
from hotstart.faults import path_of, require, require_one_of
from hotstart.guards.compare import changes
from hotstart.options import CachePolicy
from hotstart.records.guards import ProgramKey, Seen

if TYPE_CHECKING:
    from hotstart.cache.remote import RemotePolicy
    from hotstart.cache.tiers import Exchange, Offered
    from hotstart.misses import OnMiss
    from hotstart.model import Model

WAIT_S = 1800.0
"""How long to wait for another process that compiles the same program."""


class Store:
    """A place that keeps compiled programs and pieces, so that they are compiled once.

    Args:
        place: a folder. Default: the environment's `HOTSTART_CACHE`, else the user's cache folder.
        max_bytes: most bytes that it may hold; files unused for longest are removed first.
        max_files: most files that it may hold; likewise.
        max_age_days: files unused for longer are removed. Default: no limit.
        policy: what `hotstart.compile` does where nothing is found: `"build"` compiles and keeps
            it, `"require"` raises, for processes that must not compile.
        extra_key: text that is part of every key, for anything that changes the program and that
            hotstart cannot see.
        strict: whether a place that cannot be read or written, or a remote that fails, is an error;
            it is a warning otherwise, and nothing is found or kept there.
        check: whether a program is run in a process of its own before it is kept; see
            `Program.save`. What runs on no inputs that are found is kept with a warning.
        remote: the URL of a store that many machines share: `s3://bucket/prefix`, `gs://`, `az://`,
            `file:///folder`, or `http://` and `https://`, which are never written to. It is asked
            for what the folder does not have; what it gives is verified and kept in the folder.
            Needs the extra `hotstart[remote]`. Whoever can write there can run code here.
        remote_policy: `"read-write"` publishes what is built here, `"read"` does not.
        remote_timeout_s: seconds that one of these may take at most, whatever the remote does: to
            look for a program and bring it, to look for the pieces of one build, to publish a
            program, to publish the pieces of one build. One that fails is left alone for a minute.
        sign_key: file of a private key, as `hotstart keygen` makes: all that is written is signed,
            and only what this key or a trusted one has signed is read. Needs the extra
            `hotstart[sign]`.
        trusted_keys: public keys, as files, as text or as 32 raw bytes: only what one of them has
            signed is read. Without `sign_key`, what is built here is not kept.
        remote_options: settings of the remote that the environment does not say (`AWS_...`,
            `GOOGLE_...`, `AZURE_...`), as `obstore.store.from_url` takes them.

    Raises:
        StoreError: the remote's URL, a key or a setting makes no sense, or an extra is missing.

    Examples:
        >>> call = (torch.nn.Linear(64, 8), (torch.zeros(4, 64),))
        >>> store = hotstart.Store("programs", max_age_days=30)
        >>> program = hotstart.compile(*call, cache=store)
        >>> len(store.probe(hotstart.compute_key(*call)))
        1
    """

    __module__ = "hotstart"  # where users find it

    def __init__(
        self,
        place: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = LIMITS.bytes,
        max_files: int = LIMITS.files,
        max_age_days: float | None = None,
        policy: CachePolicy = "build",
        extra_key: str = "",
        strict: bool = False,
        check: bool = True,
        remote: str | None = None,
        remote_policy: RemotePolicy = "read-write",
        remote_timeout_s: float = 10.0,
        remote_options: Mapping[str, Any] | None = None,
        sign_key: str | os.PathLike[str] | None = None,
        trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None = None,
    ) -> None:
        limits = _limits(max_bytes, max_files, max_age_days)
        if remote is not None and not isinstance(remote, str):
            raise StoreError(f"remote: expected a URL as text, found {remote!r}")
        if place is not None:
            path_of("place", place, StoreError)
        require_one_of("policy", policy, CachePolicy, StoreError)
        require("extra_key", extra_key, str, "a str", StoreError)
        self.policy: CachePolicy = policy
        self.extra_key = extra_key
        self.check = check
        self.signatures = signatures_of(sign_key, trusted_keys)
        self.folder = Folder(
            default_place() if place is None else place,
            limits,
            strict=strict,
            signatures=self.signatures,
        )
        self.entries = Entries(self.folder)
        self.exchange: Exchange | None = None
        if remote is not None:
            from hotstart.cache.remote import Remote  # only who has one needs it
            from hotstart.cache.tiers import Exchange

            shared = Remote(
                remote,
                timeout_s=remote_timeout_s,
                policy=remote_policy,
                options=remote_options,
                strict=strict,
            )
            self.exchange = Exchange(self.folder, shared)

    def __repr__(self) -> str:
        remote = "" if self.exchange is None else f", remote={str(self.exchange.remote)!r}"
        return f"Store({str(self.folder.root)!r}{remote})"

    def probe(self, key: ProgramKey | str) -> list[CacheEntry]:
        """The programs of a key, the newest first. Opens none of them.

        Raises:
            StoreError: it is no key.
        """
        return self.entries.of(f"{_digest_of(key)}.")

    def entry_names(self, key: ProgramKey | str) -> set[str]:
        """Name the programs of a key that the folder and the remote have. Opens none of them.

        Machines give equal programs the same name.

        Raises:
            StoreError: it is no key; or the remote failed, and is strict.
        """
        names = {entry.name for entry in self.probe(key)}
        if self.exchange is not None:
            offered = self.exchange.offered(_digest_of(key), self.exchange.remote.visit())
            names.update(one.entry.name for one in offered)
        return names

    def find(
        self, key: ProgramKey, model: Model, on_miss: OnMiss, clock: Clock | None = None
    ) -> FoundProgram:
        """Load the program of a key that fits a model, its sources and this machine.

        A remote is asked if the folder has none. The clock, if one is given, is that of the report.
        """
        found = self.find_here(key, model, on_miss, clock)
        if found.program is not None or self.exchange is None:
            return found
        return self._bring(self.exchange, key, model, on_miss, clock)

    def find_here(
        self, key: ProgramKey, model: Model, on_miss: OnMiss, clock: Clock | None
    ) -> FoundProgram:
        """As `find`, without asking a remote."""
        return find_fitting(self.folder, self.entries, key.digest, model, on_miss, clock)

    def keep(
        self, key: ProgramKey, parts: Sequence[bytes], seen: tuple[Seen, ...], model: str
    ) -> CacheEntry | None:
        """Store a program's file, then make room if there is too much; None if it cannot be."""
        program = program_name(parts[0])
        self._put_away_damaged(program)  # of one that is there only the entry may have been lost
        size = sum(map(len, parts))
        entry = CacheEntry(key.digest, program, size, time.time(), model, hash_of(seen))
        # The program comes first, so that whoever finds the entry finds the program.
        if not self.folder.write(PROGRAMS, program, parts):
            return None
        if not self.entries.write(entry, key, seen):
            return None
        self.folder.tidy()
        return entry

    def alone(self, key: ProgramKey) -> contextlib.AbstractContextManager[bool]:
        """Hold the lock of a key while its program is compiled; others wait and then load it."""
        return self.folder.lock(key.digest, WAIT_S)

    def share(self, entry: CacheEntry | None, pieces: Iterable[str]) -> None:
        """Publish what a build made, if there is a remote that takes it.

        Args:
            entry: its program; None if that was not kept.
            pieces: the names of its pieces.
        """
        if self.exchange is None or not self.exchange.remote.writable:
            return
        if entry is not None:
            self.exchange.publish(entry, self.exchange.remote.visit())
        self.exchange.publish_pieces(pieces, self.exchange.remote.visit())

    def push(self, entry: CacheEntry) -> bool:
        """Publish a program of the folder; whether the remote has it now, published or before.

        Takes no longer than `remote_timeout_s`.

        Raises:
            StoreError: there is no remote, or none to write to; or it failed, and is strict.
        """
        exchange = self._exchange_to_write()
        return exchange.publish(entry, exchange.remote.visit())

    def push_pieces(self) -> int:
        """Publish all pieces of the folder; how many of them the remote has now.

        Each takes no longer than `remote_timeout_s`.

        Raises:
            StoreError: as `push`.
        """
        exchange = self._exchange_to_write()
        names = list(self.folder.names(PIECES))
        return sum(exchange.publish_pieces([name], exchange.remote.visit()) for name in names)

    def pull(self, key: ProgramKey | str) -> list[CacheEntry]:
        """Bring the programs that the remote has of a key; those that came, the newest first.

        Those that do not fit this machine or its sources are not brought, nor those that are here.
        Takes no longer than `remote_timeout_s`.

        Args:
            key: the key, or the whole of its digest.

        Raises:
            StoreError: it is no key, or there is no remote; or it failed, and is strict.
        """
        exchange = self._exchange()
        digest = _digest_of(key)
        visit = exchange.remote.visit()
        new = self._not_here(digest, exchange.offered(digest, visit))
        brought = [offered.entry for offered in new if not exchange.bring(offered, visit)]
        self.folder.tidy()
        return brought

    def shared_keys(self, prefix: str = "") -> list[str]:
        """The digests of the keys that the remote has programs of, or of those that begin so.

        Raises:
            StoreError: there is no remote, or it cannot list; or it failed, and is strict.
        """
        names = self._exchange().remote.visit().names(ENTRIES, prefix)
        return sorted(filter(is_key, {name.partition(".")[0] for name in names}))

    def _bring(
        self,
        exchange: Exchange,
        key: ProgramKey,
        model: Model,
        on_miss: OnMiss,
        clock: Clock | None,
    ) -> FoundProgram:
        """As `find`, with what the remote has besides."""
        visit = exchange.remote.visit()
        with exchange.alone(key.digest, visit):
            # Another process may have brought it.
            found = self.find_here(key, model, on_miss, clock)
            if found.program is not None:
                return found
            refused = list(found.refused)
            for offered in self._not_here(key.digest, exchange.offered(key.digest, visit)):
                changed = tuple(changes(model, offered.seen))
                changed = changed or exchange.bring(offered, visit)
                if not changed:
                    program, changed = loaded(
                        self.folder, self.entries, offered.entry, model, on_miss, clock
                    )
                    if program is not None:
                        self.folder.tidy()
                        return FoundProgram(program, tuple(refused))
                refused.append(Refused(offered.entry, changed))
        return FoundProgram(None, tuple(refused))

    def _not_here(self, key: str, offered: Iterable[Offered]) -> list[Offered]:
        """Those that the folder does not have, or of which it has lost the program."""
        gone = partial(self.folder.is_gone, PROGRAMS)
        here = {entry.name for entry in self.probe(key) if not gone(entry.program)}
        return [one for one in offered if one.entry.name not in here]

    def _exchange(self) -> Exchange:
        if self.exchange is None:
            raise StoreError(f"{self}: expected a store with a remote, found none. Give it one.")
        return self.exchange

    def _exchange_to_write(self) -> Exchange:
        exchange = self._exchange()
        if not exchange.remote.writable:
            raise StoreError(
                f"{self}: expected a remote that may be written to, found one to read. Use the URL "
                "of an object store, and remote_policy='read-write'."
            )
        return exchange

    def _put_away_damaged(self, program: str) -> None:
        path = self.folder.path(PROGRAMS, program)
        try:
            require_program(path, program)
            container.require_whole(path)
        except ArtifactError as error:
            if is_damage(error):
                self.folder.quarantine(PROGRAMS, program, str(error))


def open_store(cache: str | os.PathLike[str] | Store) -> Store:
    """The store that `hotstart.compile(cache=...)` was given: as it is, as a folder, or as a URL.

    Raises:
        StoreError: it is none of these.
    """
    if isinstance(cache, Store):
        return cache
    if isinstance(cache, str | os.PathLike):
        place = os.fspath(cache)
        if isinstance(place, str) and "://" in place:
            return Store(remote=place)
        return Store(cache)
    raise StoreError(
        f"cache: expected a folder, a URL or a hotstart.Store, found a {type(cache).__qualname__}"
    )


def _digest_of(key: ProgramKey | str) -> str:
    """The digest of a key, which may be given by its digest.

    Raises:
        StoreError: it is neither.
    """
    digest = key.digest if isinstance(key, ProgramKey) else key
    if not isinstance(digest, str) or not is_key(digest):
        raise StoreError(
            "key: expected what hotstart.compute_key gives, or the whole of its digest, found "
            f"{key!r}"
        )
    return digest


def _limits(max_bytes: int, max_files: int, max_age_days: float | None) -> Limits:
    """Make the limits of a folder.

    Raises:
        StoreError: one of them is no number of 0 or more.
    """
    _require_amount("max_bytes", max_bytes)
    _require_amount("max_files", max_files)
    if max_age_days is not None:
        _require_amount("max_age_days", max_age_days)
    age_s = None if max_age_days is None else max_age_days * 86400
    return Limits(bytes=max_bytes, files=max_files, age_s=age_s)


def _require_amount(name: str, value: object) -> None:
    """Raise if a limit is no number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise StoreError(f"{name}: expected a number of 0 or more, found {value!r}")
