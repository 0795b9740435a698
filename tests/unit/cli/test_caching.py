"""`hotstart explain` and `hotstart warm`, on factories in the working folder."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
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
        self.linear, self.by = nn.Linear(4, 4), {by}

    def forward(self, x):
        return self.linear(x) * self.by

def static():
    return Scaled(), (torch.zeros(2, 4),), None

def ranged():
    shapes = {{"x": {{0: Dim("rows", min=2, max=8)}}}}
    return {{"model": Scaled(), "args": (torch.zeros(3, 4),), "dynamic_shapes": shapes}}

def unknown():
    return {{"model": Scaled(), "shape": 3}}

def broken():
    raise ValueError("no such model")

def patching():
    nn.Module.put_in = lambda self: self
    return static()

def killed():
    import os
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with factories, which are imported anew."""
    file = tmp_path / "cached_shop.py"
    file.write_text(FACTORIES.format(by="2.0"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cached_shop", raising=False)
    monkeypatch.setenv("HOTSTART_CACHE", str(tmp_path / "cache"))
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


def explained(*asked: str) -> list[tuple[int, Any]]:
    """What `hotstart explain` says in its own process: tests change what is part of keys."""
    command = [sys.executable, "-c", EXPLAIN, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(status, told) for status, told in json.loads(done.stdout)]


WARM = "warm cached_shop:static --compiler op_by_op --no-check"


def test_what_was_warmed_is_found(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, WARM)
    assert (status, out.split()[0]) == (0, "compiled")
    status, out, _ = asked(capsys, WARM.replace("static", "static cached_shop:ranged"))
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["loaded", "compiled"]


def test_explain_of_an_empty_cache(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, "explain cached_shop:static")
    assert status == 6
    assert "nothing is stored yet" in out


def test_explain_names_what_changed(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, WARM)[0] == 0
    ((status, told),) = explained("cached_shop:static --compiler op_by_op --splits 3")
    assert (status, told["found"]) == (6, False)
    assert told["changes"] == [{"part": "options.splits", "was": "16", "is": "3"}]
    shop.write_text(FACTORIES.format(by="3.25"))
    ((status, told),) = explained("cached_shop:static --compiler op_by_op")
    assert status == 6
    assert told["changes"] == [{"part": "by", "was": "2.0", "is": "3.25"}]


def test_one_that_fails_does_not_stop_the_others(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factories = ("unknown", "broken", "killed", "static")
    command = " ".join(f"cached_shop:{factory}" for factory in factories)
    status, out, err = asked(capsys, f"warm {command} --compiler op_by_op --no-check")
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()] == 3 * ["failed"] + ["compiled"]
    assert "a dict with model, shape" in err
    assert "ValueError: no such model" in err
    assert "error: cached_shop:killed: BrokenProcessPool" in err


@pytest.mark.slow
def test_what_one_factory_puts_into_torch_is_not_part_of_the_next_key(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factories = "warm cached_shop:patching cached_shop:static --compiler op_by_op --no-check"
    _, plain = as_json(capsys, factories)[1]
    ((status, told),) = explained("cached_shop:static --compiler op_by_op")
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


def test_what_was_warmed_with_a_remote_is_found_by_another_machine(
    remote: str, shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(capsys, f"{WARM} --remote {remote}")[0] == 0
    monkeypatch.setenv("HOTSTART_CACHE", str(shop.parent / "another"))
    what = "cached_shop:static --compiler op_by_op"
    assert [status for status, _ in explained(what, f"{what} --remote {remote}")] == [6, 0]


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
