"""A cache with a remote that fails costs a stated time and a warning."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import hotstart
from hotstart import Store
from hotstart.misses import OnMiss
from tests.integration.remote.servers import (
    S3_SETTINGS,
    SLACK_S,
    TIMEOUT_S,
    Faulty,
    Machine,
    Simple,
    asked,
    free_port,
    key_of,
    model,
    problems,
)


@pytest.fixture
def hasty(machine: Machine) -> Machine:
    """Makes a store that gives a remote a short time only."""
    return functools.partial(machine, remote_timeout_s=TIMEOUT_S)


def find_s(store: Store) -> float:
    """Seconds that a look-up takes that finds nothing."""
    key = key_of(model())
    started = time.monotonic()
    found = store.find(key, model(), OnMiss())
    seconds = time.monotonic() - started
    assert found.program is None
    return seconds


FAILS = ("500", "503", "403", "truncated", "reset", "silent", "drip")
WRONG = ("page", "flipped", "short")
KINDS = ("entries", "programs")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAILS)
def test_a_server_that_fails_costs_a_stated_time_and_a_warning(
    fault: str, kind: str, faulty: Faulty, hasty: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    b = hasty("b", f"{faulty.url}/{fault}:{kind}")
    seconds = find_s(b)
    assert seconds < TIMEOUT_S + SLACK_S
    assert len([it for it in caplog.records if it.name.startswith("hotstart")]) == 1
    assert "going on without" in caplog.text
    requests = len(faulty.requests())
    assert asked(b, model()) == "compiled"
    assert len(faulty.requests()) == requests  # it is left alone, for pieces as well
    assert asked(b, model()) == "loaded"


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", WRONG)
def test_what_is_not_what_was_written_is_never_loaded(
    fault: str,
    kind: str,
    faulty: Faulty,
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    b = machine("b", f"{faulty.url}/{fault}:{kind}")
    assert find_s(b) < TIMEOUT_S + SLACK_S
    assert "not used" in caplog.text
    assert list(b.folder.files()) == []
    asked(b, model())  # made anew, of pieces, which are whole
    assert asked(b, model(), policy="require") == "loaded"


@pytest.mark.parametrize("fault", [*FAILS, *WRONG])
def test_pieces_that_cannot_be_had_are_compiled(fault: str, faulty: Faulty, hasty: Machine) -> None:
    b = hasty("b", f"{faulty.url}/{fault}:pieces")
    torch.manual_seed(0)
    deeper = Simple(3).eval()
    started = time.monotonic()
    assert asked(b, deeper) == "compiled"
    with_fault = time.monotonic() - started
    assert problems(b) >= 1
    started = time.monotonic()
    asked(Store(b.folder.root.with_name("c"), check=False), deeper)
    assert with_fault < time.monotonic() - started + TIMEOUT_S + SLACK_S


def test_the_faulty_server_without_a_fault_is_a_server(faulty: Faulty, machine: Machine) -> None:
    b = machine("b", f"{faulty.url}/none")
    assert asked(b, model(), policy="require") == "loaded"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_killed_while_it_answers(
    kind: str, faulty: Faulty, hasty: Machine
) -> None:
    b = hasty("b", f"{faulty.url}/killed:{kind}")
    assert find_s(b) < TIMEOUT_S + SLACK_S
    assert faulty.process.wait(5) < 0
    assert list(b.folder.files()) == []
    assert asked(b, model()) == "compiled"


def test_a_server_that_is_not_there(hasty: Machine) -> None:
    b = hasty("b", f"http://127.0.0.1:{free_port()}")
    assert find_s(b) < TIMEOUT_S + SLACK_S
    assert find_s(b) < 0.1
    assert asked(b, model()) == "compiled"


def test_a_server_that_accepts_nothing(hasty: Machine) -> None:
    with contextlib.ExitStack() as held:
        blackhole = held.enter_context(socket.socket())
        blackhole.bind(("127.0.0.1", 0))
        blackhole.listen(0)
        address = blackhole.getsockname()
        for _ in range(4):  # whoever comes when the queue is full gets no answer at all
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        b = hasty("b", f"http://127.0.0.1:{address[1]}")
        seconds = find_s(b)
        assert TIMEOUT_S * 0.9 < seconds < TIMEOUT_S + SLACK_S
        assert find_s(b) < 0.1


@pytest.mark.parametrize("fault", ["500", "reset", "silent", "403"])
def test_what_cannot_be_published_is_a_warning(
    fault: str, faulty: Faulty, machine: Machine, hasty: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in S3_SETTINGS.items():
        monkeypatch.setenv(name, value)
    # Reading finds nothing there, and writing fails.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{faulty.url}/{fault}:programs")
    b = (hasty if fault == "silent" else machine)("b", "s3://bucket/somewhere")
    assert asked(b, model()) == "compiled"
    assert problems(b) == 1
    assert any(line.startswith("PUT") for line in faulty.requests())
    assert asked(b, model()) == "loaded"


def test_a_remote_that_fails_is_an_error_where_it_has_to_work(
    faulty: Faulty, tmp_path: Path
) -> None:
    store = Store(tmp_path / "b", check=False, strict=True, remote=f"{faulty.url}/500")
    with pytest.raises(hotstart.StoreError, match="500"):
        asked(store, model())


def test_what_is_required_and_cannot_be_asked_for_says_so(faulty: Faulty, machine: Machine) -> None:
    with pytest.raises(hotstart.StoreError, match=r"the remote: .*500"):
        asked(machine("b", f"{faulty.url}/500"), model(), policy="require")


EXIT = """
import sys
import time
import threading
from hotstart.cache.remote import Remote

remote = Remote(sys.argv[1], timeout_s=0.3)
remote.visit().fetch("entries", "ab" * 16 + ".0", 1 << 20)
visit = Remote(sys.argv[1], timeout_s=30).visit()
threading.Thread(target=visit.fetch, args=("entries", "ab" * 16 + ".0", 1), daemon=True).start()
time.sleep(0.3)
print("done", flush=True)
"""


def test_a_process_ends_although_a_server_has_not_answered(faulty: Faulty) -> None:
    command = [sys.executable, "-c", EXIT, f"{faulty.url}/silent"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
