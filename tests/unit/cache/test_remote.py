"""Objects at a URL: created once, fetched, listed; what fails costs a stated time and a warning."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hotstart.cache import remote as module
from hotstart.cache.remote import Remote, Visit
from hotstart.errors import CorruptArtifact, StoreError

NAME = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture(params=["memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    return Remote({"memory": "memory:///", "file": f"file://{tmp_path}/shared"}[request.param])


class Faulty(Remote):
    """A remote that does some work before every request, and notes when."""

    def __init__(self, work: Callable[[], None], **settings: Any) -> None:
        super().__init__("memory:///", **settings)
        self.work = work
        self.asked: list[float] = []

    def opened(self) -> Any:
        self.asked.append(time.monotonic())
        self.work()
        return super().opened()


def refuse() -> None:
    raise ConnectionRefusedError("nobody listens\nand so on")


# --- what works -----------------------------------------------------------------------------------


def test_what_is_published_is_fetched(remote: Remote) -> None:
    visit = remote.visit()
    assert visit.fetch("objects", NAME, 100) is None
    assert visit.publish("objects", NAME, [b"one", b"two"]) == "written"
    assert visit.fetch("objects", NAME, 100) == b"onetwo"
    assert visit.fetch("units", NAME, 100) is None
    assert not remote.problems


def test_an_object_never_changes(remote: Remote) -> None:
    visit = remote.visit()
    assert visit.publish("objects", NAME, [b"first"]) == "written"
    assert visit.publish("objects", NAME, [b"second"]) == "there"
    assert visit.fetch("objects", NAME, 100) == b"first"


def test_objects_are_listed_by_how_their_names_begin(remote: Remote) -> None:
    visit = remote.visit()
    for name in (NAME, "abcd", "abce", OTHER):
        visit.publish("objects", name, [b""])
    assert visit.names("objects") == ["abab" + NAME[4:], "abcd", "abce", OTHER]
    assert visit.names("objects", "abc") == ["abcd", "abce"]
    assert visit.names("objects", "a") == ["abab" + NAME[4:], "abcd", "abce"]
    assert visit.names("units") == []


def test_the_layout_is_that_of_a_folder(tmp_path: Path) -> None:
    Remote(f"file://{tmp_path}").visit().publish("objects", NAME, [b"x"])
    assert (tmp_path / "v1" / "objects" / "ab" / NAME).read_bytes() == b"x"


def test_it_is_asked_from_within_an_event_loop(remote: Remote) -> None:
    async def work() -> bytes | None:
        remote.visit().publish("objects", NAME, [b"x"])
        return remote.visit().fetch("objects", NAME, 1)

    assert asyncio.run(work()) == b"x"


# --- what makes no sense --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "folder",
        "ftp://host/x",
        "s3://",
        "s3:///prefix",
        "file://folder",
        "file:///",
        "http:///x",
        "http://[x",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="expected"):
        Remote(url)


@pytest.mark.parametrize(
    "settings",
    [{"timeout_s": 0}, {"timeout_s": -1}, {"timeout_s": float("inf")}, {"policy": "write"}],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="takes"):
        Remote("memory:///", **settings)


@pytest.mark.parametrize("name", ["", "ab", "../../etc", "ab/cd", ".hidden", "AB" * 4, "a" * 300])
def test_a_name_that_is_no_name_is_refused(name: str, remote: Remote) -> None:
    with pytest.raises(StoreError, match="a name in a store"):
        remote.visit().fetch("objects", name, 1)


def test_without_the_extra_the_error_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"pip install 'hotstart\[remote\]'"):
        Remote("s3://bucket/prefix")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_file_server_is_neither_written_to_nor_listed(scheme: str) -> None:
    remote = Remote(f"{scheme}://127.0.0.1:1/programs")
    assert not remote.writable
    with pytest.raises(StoreError, match="may be written to"):
        remote.visit().publish("objects", NAME, [b""])
    with pytest.raises(StoreError, match="can list"):
        remote.visit().names("objects")


def test_a_remote_to_read_is_not_written_to(tmp_path: Path) -> None:
    remote = Remote(f"file://{tmp_path}", policy="read")
    with pytest.raises(StoreError, match="may be written to"):
        remote.visit().publish("objects", NAME, [b""])
    assert not list(tmp_path.iterdir())


def test_what_is_larger_than_it_should_be_is_not_read(remote: Remote) -> None:
    remote.visit().publish("objects", NAME, [b"12345"])
    assert remote.visit().fetch("objects", NAME, 5) == b"12345"
    with pytest.raises(CorruptArtifact, match="at most 4 bytes"):
        remote.visit().fetch("objects", NAME, 4)


def test_secrets_in_a_url_are_not_shown() -> None:
    shown = str(Remote("https://user:secret@host/programs?sig=secret"))
    assert shown == "https://host/programs"


def test_secrets_in_errors_are_not_shown() -> None:
    def work() -> None:
        raise OSError("GET https://user:secret@host/a?sig=secret failed, see 'http://b/c?d=secret'")

    remote = Faulty(work)
    remote.visit().fetch("objects", NAME, 1)
    assert remote.problems == {"GET https://host/a failed, see 'http://b/c'": 1}


# --- what goes wrong ------------------------------------------------------------------------------


def test_what_fails_is_a_warning_and_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remote = Faulty(refuse)
    for _ in range(3):
        assert remote.visit().fetch("objects", NAME, 1) is None
        assert remote.visit().publish("objects", NAME, [b""]) == "failed"
        assert remote.visit().names("objects") == []
    assert len(remote.asked) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "nobody listens; going on without for 60 s" in caplog.text
    monkeypatch.setattr(module.time, "monotonic", lambda: remote.asked[0] + module.PAUSE_S + 1)
    assert remote.visit().fetch("objects", NAME, 1) is None
    assert remote.problems == {"nobody listens": 2}


def test_what_fails_is_an_error_where_it_has_to_work() -> None:
    remote = Faulty(refuse, strict=True)
    for _ in range(2):
        with pytest.raises(StoreError, match="nobody listens"):
            remote.visit().fetch("objects", NAME, 1)


class Panic(BaseException):
    """As the library's own, which are no exceptions of the usual kind."""


@pytest.mark.parametrize(
    "error", [Panic("oh"), ValueError("oh"), ImportError("oh"), KeyError("oh")]
)
def test_whatever_the_library_raises_is_a_warning(error: BaseException) -> None:
    def work() -> None:
        raise error

    remote = Faulty(work)
    assert remote.visit().fetch("objects", NAME, 1) is None
    assert sum(remote.problems.values()) == 1


def test_settings_that_the_library_does_not_know_are_a_warning() -> None:
    remote = Remote("s3://bucket/prefix", options={"no_such_setting": "1"})
    assert remote.visit().fetch("objects", NAME, 1) is None
    assert "no_such_setting" in next(iter(remote.problems))


async def never() -> None:
    await asyncio.sleep(1000)


async def blocking() -> None:
    time.sleep(3)


@pytest.mark.thorough
@pytest.mark.parametrize(("work", "at_most_s"), [(never, 0.5), (blocking, 1.5)])
def test_what_takes_too_long_is_dropped(
    work: Callable[[], Awaitable[None]], at_most_s: float
) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        module._within(0.2, work)
    assert time.monotonic() - started < at_most_s


def test_a_visit_has_one_time_for_all_that_it_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    remote = Faulty(lambda: None, timeout_s=0.4)
    remote.visit().publish("objects", NAME, [b"x"])
    remote.work = lambda: time.sleep(0.15)
    visit: Visit = remote.visit()
    found = [visit.fetch("objects", NAME, 1) for _ in range(10)]
    assert found[:2] == [b"x", b"x"]
    assert found[3:] == [None] * 7
    assert len(caplog.records) == 1
    assert visit.left_s > -0.5
