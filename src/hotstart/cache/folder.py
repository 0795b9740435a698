"""A folder of files that many processes write to, read from and tidy up at once.

    CACHEDIR.TAG                           tells backups that nothing here is precious
    v<format>/<kind>/<2 letters>/<name>    files that never change: whole, or not there
    v<format>/pins/<kind>-<name>           empty: the file of that name is not to be tidied away
    v<format>/quarantine/<kind>-<name>     files that were found damaged
    v<format>/locks/<name>                 held while one process makes what all of them want

Readers take no lock. A file is written under a name of its own, synced and renamed, so that it is
either there as it was meant or not at all. When it was last used is the time it was modified.

Nothing that goes wrong with the file system stops a caller: what cannot be read is not there, what
cannot be written is not kept, and a warning says so. A strict folder raises instead.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hotstart.artifact import disk
from hotstart.artifact.trust import require_trusted_file
from hotstart.cache import locks, tidying
from hotstart.cache.file_names import LAYOUT, LOCKS, PINS, QUARANTINE, is_name, place_of
from hotstart.cache.signatures import Signatures
from hotstart.cache.tidying import GRACE_S, LIMITS, Limits, Stored, Tidied
from hotstart.errors import (
    ArtifactError,
    CorruptArtifact,
    IncompatibleArtifact,
    StoreError,
    UntrustedArtifact,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)

KEPT_IN_QUARANTINE = 20

_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# What is here can be made again by hotstart.\n"
)
_FULL = (errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T")


class Folder:
    """Files by kind and name.

    Args:
        root: the folder; made when something is written.
        limits: how much it may hold.
        strict: whether what goes wrong with the file system is an error.
        signatures: whose files whoever reads here believes; read-only.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        limits: Limits | None = None,
        *,
        strict: bool = False,
        signatures: Signatures | None = None,
    ) -> None:
        self.root = Path(root)
        self.limits = limits or LIMITS
        self.strict = strict
        self.signatures = signatures or Signatures()
        self.problems: Counter[str] = Counter()
        self._base = self.root / LAYOUT
        self._text = str(self.root)

    def path(self, kind: str, name: str) -> Path:
        """The path of a file, which need not be there."""
        return Path(self.path_text(kind, name))

    def path_text(self, kind: str, name: str) -> str:
        """The same as text, for those who have thousands to open."""
        return f"{self._text}/{place_of(kind, name)}"

    def read(self, kind: str, name: str) -> bytes | None:
        """The contents of a file; None if there is none that can be read."""
        path = self.path(kind, name)

        def work() -> bytes:
            with path.open("rb", buffering=0) as file:
                self._use(file.fileno())
                return file.readall()

        return self._try(f"read {path}", work)

    def is_gone(self, kind: str, name: str) -> bool:
        """Tell whether there surely is no such file; one that cannot be looked at may be there."""
        try:
            self.path(kind, name).stat()
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def write(self, kind: str, name: str, parts: Sequence[bytes]) -> bool:
        """Write a file; whether it is there now.

        One that is there already is left as it is, unless its signature is not believed.
        """
        path = self.path(kind, name)

        def work() -> bool:
            if path.exists() and self._is_believed(path):
                self._use(path)  # whoever writes it needs it
                return True
            try:
                self._put(path, parts)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self.tidy(room=sum(map(len, parts)))
                self._put(path, parts)
            return True

        return self._try(f"write {path}", work) or False

    def remove(self, kind: str, name: str) -> bool:
        """Remove a file; whether it was there."""
        path = self.path(kind, name)
        return self._done(f"remove {path}", path.unlink)

    def used(self, kind: str, name: str) -> None:
        """Note that a file is being used."""
        path = self.path(kind, name)
        with contextlib.suppress(OSError):
            self._use(path)

    def pin(self, kind: str, name: str) -> bool:
        """Keep a file whatever the limits; whether that is so now."""
        marker = self._pin(kind, name)
        return self._done(f"pin {marker.name}", partial(self._prepare, marker.parent), marker.touch)

    def unpin(self, kind: str, name: str) -> bool:
        """Let limits count for a file again; whether they did not."""
        marker = self._pin(kind, name)
        return self._done(f"unpin {marker.name}", marker.unlink)

    def pinned(self, kind: str) -> set[str]:
        """The names of the files of a kind that are pinned, whether they are there or not."""
        start = f"{kind}-"
        markers = self._list(self._base / PINS)
        return {marker.removeprefix(start) for marker in markers if marker.startswith(start)}

    def quarantine(self, kind: str, name: str, why: str) -> None:
        """Put a damaged file where nobody reads it, and say so."""
        path = self.path(kind, name)
        away = self._base / QUARANTINE / f"{kind}-{name}"
        log.warning("%s is damaged and was put away as %s: %s", path, away, why)
        if not self._done(f"put away {path}", partial(_put_away, path, away)):
            self.remove(kind, name)

    def names(self, kind: str, prefix: str = "") -> Iterator[str]:
        """The names of the files of a kind, or of those that begin alike (two letters or more)."""
        folders = [prefix[:2]] if prefix else sorted(self._list(self._base / kind))
        for folder in folders:
            for name in sorted(self._list(self._base / kind / folder)):
                if name.startswith(prefix) and is_name(name):
                    yield name

    def files(self, kind: str = "") -> list[Stored]:
        """Every file, or every one of a kind, in no order."""
        found = self._try(f"list {self._base}", lambda: [*tidying.files(self._base, kind)])
        return found or []

    def in_quarantine(self) -> list[str]:
        """List the files that were found damaged and put away."""
        return sorted(self._list(self._base / QUARANTINE))

    def tidy(self, limits: Limits | None = None, room: int = 0) -> Tidied:
        """Remove leftovers, and what was not used for longest until the rest is within limits.

        What is pinned counts, and stays.

        Args:
            limits: those of the folder by default.
            room: bytes that are to be free besides, whatever the limits say.
        """
        work = partial(tidying.tidy, self._base, limits or self.limits, room)
        return self._try(f"tidy {self._base}", work) or Tidied((), 0, 0, 0)

    @contextlib.contextmanager
    def lock(self, name: str, timeout_s: float) -> Iterator[bool]:
        """Hold a lock that one process at a time can hold; the system frees it when that ends.

        Yields:
            Whether it is held: not if it took longer than `timeout_s`, nor if the file system has
            no locks. Whoever goes on without it does what another process does as well.
        """
        path = self._base / LOCKS / name

        def work() -> BaseFileLock | None:
            self._prepare(path.parent)
            lock = locks.acquire(path, timeout_s)
            if lock is None and timeout_s > 0:
                log.warning("waited %.0f s for who holds %s; going on without", timeout_s, path)
            return lock

        lock = self._try(f"lock {path}", work)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    # --- how --------------------------------------------------------------------------------------

    def _try(self, doing: str, work: Callable[[], T]) -> T | None:
        """Return what `work` gives; None if the file is not there, or something went wrong.

        Raises:
            StoreError: something went wrong, and the folder is strict.
        """
        try:
            return work()
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = error.strerror or str(error)
            if self.strict:
                raise StoreError(
                    f"expected to {doing}, found: {reason}. Make it possible, use another folder, "
                    "or go on without what is stored by leaving strict out."
                ) from error
            self.problems[reason] += 1
            if self.problems[reason] == 1:
                log.warning("cannot %s: %s; going on without", doing, reason)
            return None

    def _done(self, doing: str, *steps: Callable[[], object]) -> bool:
        """Take some steps, one after another; whether all went well.

        Raises:
            StoreError: as `_try`.
        """

        def work() -> bool:
            for step in steps:
                step()
            return True

        return self._try(doing, work) or False

    def _is_believed(self, path: Path) -> bool:
        """Tell whether a file is signed as it has to be; a damaged one is for those who read it."""
        if self.signatures.trust is None:
            return True
        try:
            require_trusted_file(path, self.signatures.trust)
        except UntrustedArtifact:
            return False
        except ArtifactError:
            pass
        return True

    def _put(self, path: Path, parts: Sequence[bytes]) -> None:
        self._prepare(path.parent)
        disk.replace_file(path, parts)

    def _prepare(self, folder: Path) -> None:
        new = not self._base.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if new:
            with contextlib.suppress(OSError):
                (self.root / "CACHEDIR.TAG").write_bytes(_TAG)

    def _use(self, file: int | Path) -> None:
        with contextlib.suppress(OSError):
            if abs(time.time() - os.stat(file).st_mtime) > GRACE_S / 2:  # noqa: PTH116  a descriptor
                os.utime(file)

    def _pin(self, kind: str, name: str) -> Path:
        return self._base / PINS / f"{kind}-{self.path(kind, name).name}"

    def _list(self, folder: Path) -> list[str]:
        # Names, and many of them: os.listdir makes no objects.
        found = self._try(f"list {folder}", lambda: os.listdir(folder) if folder.is_dir() else [])  # noqa: PTH208
        return found or []


def _put_away(path: Path, away: Path) -> None:
    """Move a file into the quarantine, and remove what has been there for longest."""
    away.parent.mkdir(parents=True, exist_ok=True)
    path.replace(away)
    kept = sorted(away.parent.iterdir(), key=lambda file: file.stat().st_mtime)
    for old in kept[:-KEPT_IN_QUARANTINE]:
        tidying.unlink(old)


def is_damage(error: ArtifactError) -> bool:
    """Tell whether a file of a folder is not what was written, going by how it failed to be read.

    Another format is damage too: files of that format would lie in another folder.
    """
    if isinstance(error, IncompatibleArtifact):
        return any(part == "format" for part, _, _ in error.differences)
    return isinstance(error, CorruptArtifact)


def default_place() -> Path:
    """The folder that the environment names, else the user's own for caches."""
    named = os.environ.get("HOTSTART_CACHE")
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("hotstart", appauthor=False))
