"""`hotstart observe`, and `hotstart build --calls`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from tests.unit.cli.files import run

MODELS = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(self, x, scale=1.0):
        return self.up(x) * scale

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder()

    def forward(self, x):
        return self.encoder(x, scale=2.0).sum()

def model():
    return Model().eval().requires_grad_(False)

def encoder():
    return model().encoder
"""

SCRIPT = """
import sys
import torch
from models_to_observe import model

def call(batch):
    return served(torch.zeros(batch, 4))

served = model()
call(2)
call(3)
{end}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a script in a folder with models, where commands run."""
    (tmp_path / "models_to_observe.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "models_to_observe", raising=False)

    def write(end: str = "") -> str:
        (tmp_path / "serve.py").write_text(SCRIPT.format(end=end))
        return "serve.py"

    return write


def test_a_script_is_observed_and_its_calls_are_built_for(
    shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = shop("assert sys.argv[1:] == ['--port', '1'] and __name__ == '__main__'")
    command = ("observe", script, "--module", "served.encoder", "-o", "calls.json")
    status, out, err = run(capsys, *command, "--arguments=--port 1")
    assert (status, "wrote calls.json, 2 calls" in err) == (0, True)
    assert "axis batch: 2..4, seen 2, 3" in out
    built = ("build", "models_to_observe:encoder", "--compiler", "op_by_op", "--calls")
    assert (
        run(capsys, *built, "calls.json", "--max", "batch=9", "-o", "m.hot", "--no-check")[0] == 0
    )
    import models_to_observe

    model = models_to_observe.encoder()
    x = torch.randn(9, 4)
    assert torch.equal(hotstart.load("m.hot", model)(x, scale=2.0), model(x, scale=2.0))


def test_several_modules(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--module", "served", "--module", "served.encoder")
    assert run(capsys, "observe", shop(), *both, "-o", "calls.json")[0] == 0
    built = ("build", "models_to_observe:model", "--compiler", "op_by_op", "--calls", "calls.json")
    status, _, err = run(capsys, *built)
    assert (status, "calls['served']" in err) == (1, True)
    assert run(capsys, *built, "--module", "served")[0] == 0


@pytest.mark.parametrize(
    ("end", "raised"), [("1 / 0", ZeroDivisionError), ("sys.exit(3)", SystemExit)]
)
def test_what_was_seen_is_written_however_the_script_ends(
    shop: Any, end: str, raised: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    main, path = sys.modules["__main__"], sys.path[:]
    with pytest.raises(raised):
        run(capsys, "observe", shop(end), "--module", "served.encoder", "-o", "calls.json")
    assert len(hotstart.ObservedCalls.load("calls.json")) == 2
    assert (sys.modules["__main__"], sys.path) == (main, path)


def test_a_variable_may_hold_something_else_at_first(
    shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / shop()
    script.write_text("served = None\nserved = 'name of a model'\n" + script.read_text())
    command = ("observe", "serve.py", "--module", "served.encoder", "--module", "served")
    assert run(capsys, *command, "-o", "calls.json")[0] == 0
    assert len(hotstart.ObservedCalls.load("calls.json")["served"]) == 2


def test_a_script_that_exits_well(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("observe", shop("sys.exit()"), "--module", "served", "-o", "calls.json")
    assert run(capsys, *command)[0] == 0


@pytest.mark.parametrize(
    ("script", "module", "output", "message"),
    [
        ("serve.py", "other.encoder", "calls.json", "'other' to be a variable"),
        ("serve.py", "call", "calls.json", "takes a torch.nn.Module or a bound method"),
        ("none.py", "served", "calls.json", "No such file"),
        ("models_to_observe.py", "served", "none/calls.json", "Nothing was run"),
    ],
)
def test_what_cannot_be_observed(
    shop: Any,
    script: str,
    module: str,
    output: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shop()
    status, _, err = run(capsys, "observe", script, "--module", module, "-o", output)
    assert (status, message in err) == (1, True)


def test_flags_that_are_for_calls(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "build", "models_to_observe:encoder", "--max", "batch=9")
    assert "--max is for --calls" in capsys.readouterr().err
    status, _, err = run(capsys, "build", "models_to_observe:encoder", "--calls", "none.json")
    assert (status, "none.json" in err) == (1, True)
