"""`hotstart explain` and `hotstart warm`, on factories in the working folder."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hotstart
from hotstart import Options, Store
from hotstart.cli import main

FACTORIES = """
import torch
from torch import nn
from hotstart import Dim

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.by = nn.Linear(4, 4), 2.0

    def forward(self, x):
        return self.linear(x) * self.by

def static():
    return Scaled(), (torch.zeros(2, 4),), None

def ranged():
    shapes = {"x": {0: Dim("rows", min=2, max=8)}}
    return {"model": Scaled(), "args": (torch.zeros(3, 4),), "dynamic_shapes": shapes}

def changed():
    given = ranged()
    given["model"].by = 3.25
    return given

def patching():
    nn.Module.put_in = lambda self: self
    return static()
"""

FAILING = """
import os
import time
from pathlib import Path

def slow():
    Path("began").write_text(str(os.getpid()))
    time.sleep(300)

def unknown():
    return {"model": None, "shape": 3}

def broken():
    raise ValueError("no such model")

def killed():
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with factories, which are imported anew."""
    return working_in(tmp_path, monkeypatch)


def working_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make a folder the working folder, with factories and a cache."""
    file = folder / "cached_shop.py"
    file.write_text(FACTORIES)
    file.with_name("failing_shop.py").write_text(FAILING)
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    patch.delitem(sys.modules, "cached_shop", raising=False)
    patch.setenv("HOTSTART_CACHE", str(folder / "cache"))
    return file


def asked(capsys: pytest.CaptureFixture[str], command: str) -> tuple[int, str, str]:
    status = main(command.split())
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], command: str) -> tuple[int, Any]:
    status, out, _ = asked(capsys, f"{command} --json")
    return status, json.loads(out)


EXPLAIN = """
import contextlib, io, json, sys
from hotstart.cli import main
found = []
for asked in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(["explain", *asked.split(), "--json"])
    found.append([status, json.loads(out.getvalue())])
print(json.dumps(found))
"""


def explained(python: Callable[..., str], folder: Path, *asked: str) -> list[tuple[int, Any]]:
    """What `hotstart explain` says in its own process: tests change what is part of keys."""
    with contextlib.chdir(folder):
        told = python("-c", EXPLAIN, *asked, HOTSTART_CACHE=str(folder / "cache"))
    return [(status, said) for status, said in json.loads(told)]


REMOTE = importlib.util.find_spec("obstore") is not None
needs_remote = pytest.mark.skipif(not REMOTE, reason="the extra hotstart[remote] is not installed")


@dataclass(frozen=True)
class Warmed:
    """A folder where some factories were warmed, and what the command said."""

    folder: Path
    status: int
    out: str
    err: str

    @property
    def remote(self) -> str:
        return (self.folder / "remote").as_uri()


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Warmed:
    """One command for several tests, since each factory starts a process."""
    folder = tmp_path_factory.mktemp("warmed")
    factories = [f"failing_shop:{name}" for name in ("unknown", "broken", "killed")]
    factories.append("cached_shop:ranged")
    place = ["--remote", (folder / "remote").as_uri()] if REMOTE else []
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        working_in(folder, patch)
        status = main(["warm", *factories, "--compiler", "op_by_op", "--no-check", *place])
    return Warmed(folder, status, out.getvalue(), err.getvalue())


@pytest.mark.thorough
def test_one_that_fails_does_not_stop_the_others(warmed: Warmed) -> None:
    assert warmed.status == 1
    assert [line.split()[0] for line in warmed.out.splitlines()] == 3 * ["failed"] + ["compiled"]
    assert "a dict with model, shape" in warmed.err
    assert "ValueError: no such model" in warmed.err
    assert "error: failing_shop:killed: its process was ended by SIGKILL" in warmed.err


def test_progress_has_a_line_for_what_each_model_does(warmed: Warmed) -> None:
    lines = warmed.err.splitlines()
    assert "[1/4] failing_shop:unknown: starting" in lines
    assert "[4/4] cached_shop:ranged: capture" in lines
    assert all(line.startswith(("[", "error: ")) for line in lines if "shop:" in line)


@pytest.mark.thorough
def test_json_is_quiet(
    warmed: Warmed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    working_in(warmed.folder, monkeypatch)
    given = "warm cached_shop:ranged --compiler op_by_op --no-check --json"
    status, out, err = asked(capsys, given)
    assert (status, err) == (0, "")
    assert [row["action"] for row in json.loads(out)] == ["loaded"]


def test_an_interrupt_ends_the_process_that_compiles(shop: Path) -> None:
    command = [sys.executable, "-m", "hotstart", "warm", "failing_shop:slow", "--no-check"]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell has what it starts in the background ignore interrupts, tests among them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    began = shop.with_name("began")
    wait_for(lambda: began.exists() and began.read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not Path(f"/proc/{began.read_text()}").exists()


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not so within {seconds} s"
        time.sleep(0.05)


@pytest.mark.thorough
def test_what_was_warmed_is_found(
    warmed: Warmed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    working_in(warmed.folder, monkeypatch)
    status, out, _ = asked(capsys, "warm cached_shop:ranged --compiler op_by_op --no-check")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["loaded"]


def test_explain_of_an_empty_cache(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, "explain cached_shop:static")
    assert status == 6
    assert "nothing is stored yet" in out


def test_explain_writes_a_page_of_what_differs(warmed: Warmed, python: Callable[..., str]) -> None:
    asked = "cached_shop:ranged --compiler op_by_op --splits 3 --html miss.html"
    ((status, found),) = explained(python, warmed.folder, asked)
    assert (status, found["found"]) == (6, False)
    page = (warmed.folder / "miss.html").read_text()
    assert "<h1>cached_shop:ranged</h1>" in page
    assert "options.splits" in page
    assert found["nearest"] in page


def test_explain_writes_a_page_of_what_is_found(warmed: Warmed, python: Callable[..., str]) -> None:
    asked = "cached_shop:ranged --compiler op_by_op --html found.html"
    ((status, found),) = explained(python, warmed.folder, asked)
    assert (status, found["found"]) == (0, True)
    assert "The cache has a program that fits" in (warmed.folder / "found.html").read_text()


@pytest.fixture(scope="module")
def told(warmed: Warmed, python: Callable[..., str]) -> dict[str, tuple[int, Any]]:
    """What `hotstart explain` says of what was warmed, by the name of what was asked."""
    ranged = "cached_shop:ranged --compiler op_by_op"
    asked = {
        "option": f"{ranged} --splits 3",
        "attribute": "cached_shop:changed --compiler op_by_op",
        "elsewhere": f"{ranged} --cache another",
    }
    if REMOTE:
        asked["shared"] = f"{ranged} --cache another --remote {warmed.remote}"
    return dict(zip(asked, explained(python, warmed.folder, *asked.values()), strict=True))


@pytest.mark.parametrize(
    ("asked", "change"),
    [
        ("option", {"part": "options.splits", "was": "16", "is": "3"}),
        ("attribute", {"part": "by", "was": "2.0", "is": "3.25"}),
    ],
)
def test_explain_names_what_changed(
    asked: str, change: dict[str, str], told: dict[str, tuple[int, Any]]
) -> None:
    status, found = told[asked]
    assert (status, found["found"]) == (6, False)
    assert found["changes"] == [change]


@needs_remote
def test_what_was_warmed_with_a_remote_is_found_by_another_machine(
    told: dict[str, tuple[int, Any]],
) -> None:
    assert [told[asked][0] for asked in ("elsewhere", "shared")] == [6, 0]


@pytest.mark.slow
def test_what_one_factory_puts_into_torch_is_not_part_of_the_next_key(
    shop: Path, capsys: pytest.CaptureFixture[str], python: Callable[..., str]
) -> None:
    factories = "warm cached_shop:patching cached_shop:static --compiler op_by_op --no-check"
    _, plain = as_json(capsys, factories)[1]
    ((status, told),) = explained(python, shop.parent, "cached_shop:static --compiler op_by_op")
    assert (status, told["found"], told["key"]) == (0, True, plain["key"])


@pytest.fixture
def remote(shop: Path) -> str:
    """The URL of a remote that has nothing yet."""
    pytest.importorskip("obstore", reason="the extra hotstart[remote] is not installed")
    return (shop.parent / "remote").as_uri()


@pytest.fixture
def shared(shop: Path, remote: str) -> str:
    """The URL of a remote that has what one machine built."""
    model, args, _ = importlib.import_module(shop.stem).static()
    store = Store(shop.parent / "cache", remote=remote, check=False)
    hotstart.compile(model, args, cache=store, options=Options(compiler="op_by_op"))
    return remote


def test_push_and_pull(
    shared: str, shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = as_json(capsys, "cache ls")[1]
    monkeypatch.setenv("HOTSTART_CACHE", str(shop.parent / "another"))
    for key in (entry["key"], entry["key"][:6], ""):
        status, done = as_json(capsys, f"cache pull {key} --remote {shared}")
        assert (status, [one["key"] for one in done["programs"]]) == (0, [entry["key"]])
        assert asked(capsys, f"cache rm {entry['key']}")[0] == 0
    assert asked(capsys, f"cache pull --remote {shared}")[1] == "brought 1 programs\n"
    assert asked(capsys, f"cache pull --remote {shared}")[1] == "brought 0 programs\n"
    third = (shop.parent / "third").as_uri()
    assert asked(capsys, f"cache push {entry['key'][:6]} --remote {third}")[1:] == (
        "published 1 programs\n", "",
    )  # fmt: skip
    monkeypatch.setenv("HOTSTART_CACHE", str(shop.parent / "cache"))
    _, done = as_json(capsys, f"cache push --remote {third}")
    assert (len(done["programs"]), done["pieces"]) == (1, 1)


def test_a_file_server_is_no_place_to_push_to(
    shared: str, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = asked(capsys, "cache push --remote http://127.0.0.1:9/cache")
    assert status == 1
    assert "found one to read" in err
    status, _, err = asked(capsys, "cache pull --remote http://127.0.0.1:9/cache")
    assert status == 1
    assert "can list" in err


def test_a_signed_cache_is_found_by_who_trusts_the_key(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography", reason="the extra hotstart[sign] is not installed")
    assert asked(capsys, "keygen team")[0] == 0
    assert asked(capsys, "keygen other")[0] == 0
    factory = importlib.import_module(shop.stem).static
    model, args, _ = factory()
    store = Store(sign_key="team", check=False)
    hotstart.compile(model, args, cache=store, options=Options(compiler="op_by_op"))
    explain = "explain cached_shop:static --compiler op_by_op --trusted-key"
    assert asked(capsys, f"{explain} team.pub")[0] == 0
    assert asked(capsys, f"{explain} other.pub")[0] == 6
    assert asked(capsys, "cache verify --trusted-key team.pub")[0] == 0
    status, told = as_json(capsys, "cache verify --trusted-key other.pub")
    assert (status, len(told["damaged"])) == (1, told["files"])
    assert as_json(capsys, "cache verify")[1]["ok"], "nothing was put away"
