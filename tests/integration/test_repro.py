"""Scripts of a debug folder that run one piece alone."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, Options
from hotstart.cli import main
from tests.integration.test_bisect import ROWS, Block, X


class Model(nn.Module):
    """Pieces of its own width, one with a constant, one of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Block(12), Block(16)
        self.table = nn.Embedding(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).cumsum(0)
        x = self.two(x * torch.tensor([2.0])).cumsum(0)
        return self.table(x.abs().long().clamp(max=4)).sum(1)


def folder_of(tmp_path: Path, **settings: Any) -> Path:
    options = Options(compiler="op_by_op", debug_dir=tmp_path)
    hotstart.compile(Model().eval(), split_on=["cumsum"], options=options, **settings)
    return tmp_path / "hotstart"


def repros(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/repro.py"))


def status_of(script: Path) -> int:
    with pytest.raises(SystemExit) as raised:
        runpy.run_path(str(script), run_name="__main__")
    status: int = raised.value.code  # type: ignore[assignment]
    return status


@pytest.fixture
def compiled_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts another function in the place of what `torch.compile` would make."""

    def put(change: Callable[..., Any]) -> None:
        monkeypatch.setattr(torch, "compile", lambda function, **_: change(function))

    return put


@pytest.mark.parametrize("shapes", [None, ROWS], ids=["static", "ranges"])
def test_every_different_piece_has_a_script_that_runs(
    tmp_path: Path, compiled_as: Callable[..., None], shapes: Any
) -> None:
    compiled_as(lambda function: function)
    scripts = repros(folder_of(tmp_path, args=(X,), dynamic_shapes=shapes))
    assert [script.parent.name for script in scripts] == ["piece_0", "piece_2", "piece_4"]
    assert [status_of(script) for script in scripts] == [0, 0, 0]


class Alike(nn.Module):
    """Two pieces that are equal, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(12) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_a_piece_that_equals_another_has_a_script_too_and_names_the_other(
    tmp_path: Path, compiled_as: Callable[..., None]
) -> None:
    compiled_as(lambda function: function)
    options = Options(compiler="op_by_op", debug_dir=tmp_path)
    program = hotstart.compile(Alike().eval(), (X,), options=options)
    folder = tmp_path / "hotstart"
    scripts = repros(folder)
    assert [script.parent.name for script in scripts] == [f"piece_{i}" for i in range(3)]
    assert status_of(scripts[1]) == 0
    graphs = [(script.parent / "graph.txt").read_text() for script in scripts]
    assert ["equal to piece_0" in graph for graph in graphs] == [False, True, False]
    unit = program.artifact.units[0].key[:16]
    assert [f"static: unit_{unit}.py" in graph for graph in graphs] == [True, True, False]
    assert (folder / f"unit_{unit}.py").is_file()


def test_pieces_of_named_calls_have_one_too(
    tmp_path: Path, compiled_as: Callable[..., None]
) -> None:
    compiled_as(lambda function: function)
    calls = {"one": Call(args=(X[:1],)), "many": Call(args=(X,), dynamic_shapes=ROWS)}
    scripts = repros(folder_of(tmp_path, calls=calls))
    assert {script.parent.name.partition(".")[0] for script in scripts} == {"one", "many"}
    assert {status_of(script) for script in scripts} == {0}


def test_a_wrong_result_is_told(tmp_path: Path, compiled_as: Callable[..., None]) -> None:
    def wrong(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: [output * 1.01 for output in function(*args)]

    compiled_as(wrong)
    script, *_ = repros(folder_of(tmp_path, args=(X,)))
    assert status_of(script) == 1


def test_the_command_runs_the_script(
    tmp_path: Path, compiled_as: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    compiled_as(lambda function: function)
    folder = folder_of(tmp_path, args=(X,))
    with pytest.raises(SystemExit, match="0"):
        main(["repro", str(folder / "piece_0")])
    assert "output 0, (3, 8) torch.float32: 0.0e+00" in capsys.readouterr().out
    capsys.readouterr()
    for wrong in (folder, tmp_path, folder / "piece_1"):
        assert main(["repro", str(wrong)]) == 1
        assert f"Take one of these: {folder / 'piece_0'}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_script_needs_nothing_but_torch(tmp_path: Path) -> None:
    script = repros(folder_of(tmp_path, args=(X,), dynamic_shapes=ROWS))[1]
    command = [sys.executable, "-I", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "output 0" in done.stdout
