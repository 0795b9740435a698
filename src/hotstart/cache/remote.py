"""Objects at a URL that many machines share: create, fetch, list, each within a stated time.

    <url>/v<format>/<kind>/<2 letters>/<name>

An object is written if there is none of that name, or none that is whole, and never changes, so a
plain file server over a copy of the tree serves as well as an object store.

Nothing that goes wrong with a remote stops a caller: what cannot be fetched is not there, what
cannot be published is not shared, a warning says so, and the remote is left alone for a while. A
strict one raises instead. Nothing here says whether an object is what it should be.

The library that speaks to object stores is imported when a remote is first asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hotstart.cache.file_names import LAYOUT, is_name, place_of
from hotstart.cache.remote_url import RemoteUrl, without_secrets
from hotstart.errors import ArtifactError, CorruptArtifact, StoreError
from hotstart.faults import require, require_one_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log = logging.getLogger(__name__)

RemotePolicy = Literal["read-write", "read"]
Published = Literal["written", "there", "failed"]

PAUSE_S = 60.0
"""So long a remote that failed is not asked again."""

_SLACK_S = 1.0
_WRONG = "an object that is not what it should be"

T = TypeVar("T")


class Remote:
    """Objects by kind and name, at a URL.

    Args:
        url: `s3://bucket/prefix`, `gs://`, `az://container/prefix`, `file:///folder`, or
            `http://` and `https://`, which are never written to.
        timeout_s: seconds that everything together takes at most that one visit asks for.
        policy: whether it is written to.
        options: what `obstore.store.from_url` takes, such as `endpoint` or `credential_provider`,
            besides what the environment says.
        strict: whether a remote that fails is an error.

    Raises:
        StoreError: the URL or a setting makes no sense, or the extra is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        policy: RemotePolicy = "read-write",
        options: Mapping[str, Any] | None = None,
        strict: bool = False,
    ) -> None:
        self._url = RemoteUrl(url)
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s < float("inf"):
            raise StoreError(
                f"remote_timeout_s: got {timeout_s!r}, takes a number of seconds above 0"
            )
        require_one_of("remote_policy", policy, RemotePolicy, StoreError)
        if options is not None:
            require("remote_options", options, Mapping, "a mapping of settings", StoreError)
        self._options = dict(options or {})
        self._store: ObjectStore | None = None
        self._rests_until = -float("inf")
        self.timeout_s = timeout_s
        self.strict = strict
        self.writable = policy == "read-write" and not self._url.is_file_server
        self.problems: Counter[str] = Counter()
        self.damaged: set[tuple[str, str]] = set()

    def __str__(self) -> str:
        return str(self._url)

    def visit(self) -> Visit:
        """Begin something that may take `timeout_s` seconds in all."""
        return Visit(self)

    def where(self, kind: str, name: str) -> str:
        """The URL of an object for messages, whether it is there or not."""
        return f"{str(self).rstrip('/')}/{place_of(kind, name)}"

    def wrong(self, kind: str, name: str, error: ArtifactError) -> None:
        """Note that an object is not what it should be, and say so.

        One that is published under its name takes its place.
        """
        self.damaged.add((kind, name))
        self.problems[_WRONG] += 1
        log.log(
            logging.WARNING if self.problems[_WRONG] == 1 else logging.INFO, "not used: %s", error
        )

    @property
    def rests(self) -> bool:
        """Tell whether it failed a short while ago, and is not asked."""
        return time.monotonic() < self._rests_until

    def failed(self, doing: str, error: Exception) -> None:
        """Note that a request failed, and leave the remote alone for a while.

        Raises:
            StoreError: it is strict.
        """
        reason = _reason(error)
        self.problems[reason] += 1
        if self.strict:
            raise StoreError(
                f"expected to {doing}, found: {reason}. Make it possible, or go on without the "
                "remote by leaving strict out."
            ) from error
        self._rests_until = time.monotonic() + PAUSE_S
        log.warning("cannot %s: %s; going on without for %.0f s", doing, reason, PAUSE_S)

    def opened(self) -> ObjectStore:
        """The library's object for it; made once, and no request is sent for that.

        Raises:
            Exception: whatever the library finds wrong with the settings.
        """
        if self._store is None:
            self._store = self._url.open(self.timeout_s, self._options, self.writable)
        return self._store

    def list_prefix(self, kind: str, prefix: str) -> str:
        """Under which all objects are whose names begin so.

        Raises:
            StoreError: the remote cannot list.
        """
        if self._url.is_file_server:
            raise StoreError(
                f"{self}: expected a store that can list what it has, found a file server. Ask for "
                "a key, or use the URL of the object store behind it."
            )
        folder = f"{LAYOUT}/{kind}"
        return f"{folder}/{prefix[:2]}" if len(prefix) >= 2 else folder


class Visit:
    """Requests to a remote that may take so many seconds together; see `Remote.visit`.

    Attributes:
        left_s: seconds that are left.
    """

    def __init__(self, remote: Remote) -> None:
        self.left_s = remote.timeout_s
        self._remote = remote

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time that something takes."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.left_s -= time.monotonic() - started

    def fetch(self, kind: str, name: str, at_most: int) -> bytes | None:
        """An object; None if there is none that can be fetched.

        Args:
            kind: what it is for.
            name: its name.
            at_most: bytes; what is larger is not what it should be.

        Raises:
            CorruptArtifact: it is larger.
            StoreError: the remote is strict, and failed.
        """
        path, where = place_of(kind, name), self._remote.where(kind, name)

        async def work() -> bytes | None:
            import obstore

            try:
                found = await obstore.get_async(self._remote.opened(), path)
            except FileNotFoundError:
                return None
            size = found.meta["size"]
            if size > at_most:
                raise CorruptArtifact(where, "size", f"at most {at_most} bytes", f"{size}")
            return bytes(await found.bytes_async())

        return self._ask(f"read {where}", work)

    def begins_with(self, kind: str, name: str, size: int) -> bytes | None:
        """The first bytes of an object; None if it cannot be fetched, or has fewer.

        Raises:
            StoreError: the remote is strict, and failed.
        """
        path = place_of(kind, name)

        async def work() -> bytes | None:
            import obstore

            try:
                start = await obstore.get_range_async(
                    self._remote.opened(), path, start=0, length=size
                )
            except FileNotFoundError:
                return None
            return bytes(start)

        return self._ask(f"read {self._remote.where(kind, name)}", work)

    def publish(self, kind: str, name: str, parts: Sequence[bytes]) -> Published:
        """Write an object. One that is there already is left as it is, but if it was found wrong.

        Raises:
            StoreError: the remote is strict, and failed; or it is not to be written to.
        """
        path, where = place_of(kind, name), self._remote.where(kind, name)
        if not self._remote.writable:
            raise StoreError(
                f"{where}: expected a remote that may be written to, found one to read"
            )

        damaged = self._remote.damaged
        mode: Literal["create", "overwrite"] = "overwrite" if (kind, name) in damaged else "create"

        async def work() -> Published:
            import obstore
            from obstore.exceptions import AlreadyExistsError

            try:
                await obstore.put_async(
                    self._remote.opened(), path, b"".join(parts), mode=mode, use_multipart=False
                )
            except AlreadyExistsError:
                return "there"
            damaged.discard((kind, name))
            return "written"

        return self._ask(f"write {where}", work) or "failed"

    def names(self, kind: str, prefix: str = "") -> list[str]:
        """The names of the objects of a kind, or of those that begin alike.

        Raises:
            StoreError: the remote cannot list; or it is strict, and failed.
        """
        under = self._remote.list_prefix(kind, prefix)

        async def work() -> list[str]:
            import obstore

            found: list[str] = []
            async for chunk in obstore.list(self._remote.opened(), prefix=under):
                found += [str(meta["path"]).rpartition("/")[2] for meta in chunk]
            return sorted(name for name in found if name.startswith(prefix) and is_name(name))

        return self._ask(f"list {self._remote}/{under}", work) or []

    def _ask(self, doing: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        remote = self._remote
        if remote.rests:
            return None
        try:
            with self.spending():
                return _within(self.left_s, work)
        except ArtifactError:
            raise
        except Exception as error:  # noqa: BLE001  providers of credentials raise what they like
            remote.failed(doing, error)
            return None


def _within(seconds: float, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of requests, which are cancelled when the time is up.

    The library's own limits are for each attempt of each request, so they do not end this in time.
    The requests run on a thread of their own, since the caller may be in an event loop.

    Raises:
        TimeoutError: the time is up.
        Exception: whatever the requests raise.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(asyncio.wait_for(work(), seconds)))
        except Exception as error:  # noqa: BLE001  raised in the thread that asked
            done.set_exception(error)
        except BaseException as error:  # noqa: BLE001  a panic of the library, which is no Exception
            done.set_exception(RuntimeError(str(error)))

    if seconds <= 0:
        raise TimeoutError
    threading.Thread(target=run, name="hotstart-remote", daemon=True).start()
    return done.result(seconds + _SLACK_S)


def _reason(error: Exception) -> str:
    """The text of an error, without what the library adds, and without secrets in URLs."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error).strip().partition("\n")[0]
    text = text.rpartition("  - ")[2]  # after the request, which had its time and its URL
    return without_secrets(text) or type(error).__name__
