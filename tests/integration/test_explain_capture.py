"""`hotstart.explain_capture`: all obstacles at once."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, Dim
from hotstart.cli import main
from hotstart.errors import OptionsError

X = torch.ones(3, 4)
LOCK = threading.Lock()


class Obstructed(nn.Module):
    """Three things that no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x + 1
        torch._dynamo.graph_break()
        x = x.cos()
        with open("/dev/null"):  # noqa: PTH123  Dynamo knows Path.open
            x = x + 1
        return x.sin()

    def fine(self, x: Tensor) -> Tensor:
        return x + 1


def lines_of(found: hotstart.CaptureReport) -> list[str]:
    """The source of the lines that are named."""
    return [obstacle.line.split(": ", 1)[1] for obstacle in found.obstacles]


def test_all_places_are_listed_in_order() -> None:
    found = hotstart.explain_capture(Obstructed(), (X,))
    assert not found.captured
    assert [line.split("  #")[0] for line in lines_of(found)] == [
        "if x.sum() > 0:",
        "torch._dynamo.graph_break()",
        'with open("/dev/null"):',
    ]
    branch, _, opened = found.obstacles
    assert branch.reason == "a branch depends on the contents of a tensor"
    assert "torch.cond" in branch.advice
    assert "open" in opened.reason
    assert all(f"{__file__}:" in obstacle.line for obstacle in found.obstacles)
    assert all(" in forward: " in obstacle.line for obstacle in found.obstacles)


def test_what_the_build_says_is_there() -> None:
    found = hotstart.explain_capture(Obstructed(), (X,))
    with pytest.raises(hotstart.CaptureError) as raised:
        hotstart.compile(Obstructed(), (X,))
    assert found.error == f"CaptureError: {raised.value}"
    text = str(found)
    assert text.startswith("3 places where the graph breaks:")
    assert text.endswith(found.error)


class Breaking(Obstructed):
    """Breaks the graph before anything is computed, which Dynamo does not list."""

    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(x)


def test_what_the_build_says_counts_besides_where_it_is_none_of_the_places() -> None:
    text = str(hotstart.explain_capture(Breaking(), (X,)))
    assert text.startswith("3 places where the graph breaks, besides the one that the build names:")
    assert "in forward: torch._dynamo.graph_break()" in text


LOG = logging.getLogger("model")


def test_what_forward_says_is_no_obstacle() -> None:
    class Saying(Obstructed):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 2
            LOG.info("doubled")
            print(end="")
            return super().forward(x)

    assert str(hotstart.explain_capture(Saying(), (X,))).startswith("3 places where")


def test_a_model_that_is_captured_has_no_obstacles() -> None:
    shapes = {"input": {0: Dim("rows", min=1, max=8)}}
    found = hotstart.explain_capture(nn.Linear(4, 2), (X,), dynamic_shapes=shapes)
    assert found.captured
    assert (found.error, found.obstacles) == ("", ())
    assert str(found) == "the model is captured as one graph for each call"


def test_what_only_hotstart_refuses_is_the_error() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(1)
            return x + 1

    found = hotstart.explain_capture(Counting(), (X,))
    assert found.obstacles == ()
    assert "seen" in found.error
    assert str(found) == found.error


def test_a_range_that_does_not_hold_is_told() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(2, -1)

    shapes = {"x": {0: Dim("rows", min=1, max=7)}}
    found = hotstart.explain_capture(Halves(), (torch.randn(3, 3),), dynamic_shapes=shapes)
    assert not found.captured


def test_obstacles_of_several_calls_have_the_name_of_theirs() -> None:
    calls = {"good": Call(args=(X,), method="fine"), "bad": Call(args=(X,))}
    found = hotstart.explain_capture(Obstructed(), calls=calls)
    assert {obstacle.call for obstacle in found.obstacles} == {"bad"}
    assert "call:    bad" in str(found)


def test_a_call_that_cannot_be_made_leaves_the_first_obstacle() -> None:
    found = hotstart.explain_capture(Obstructed(), (X.to("meta"),))
    assert not found.captured
    assert found.error.startswith("CaptureError")


def test_options_are_options() -> None:
    settings: dict[str, Any] = {"options": "fast"}
    with pytest.raises(OptionsError, match="options: got a str"):
        hotstart.explain_capture(nn.Linear(4, 2), (X,), **settings)


SHOP = """
from torch import nn
from tests.integration.test_explain_capture import Obstructed, X

def bad():
    print("a factory may print")
    return Obstructed(), (X,), None

def good():
    return nn.Linear(4, 2), (X,), None
"""


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "obstructed_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["explain-capture", "obstructed_shop:bad", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "a factory may print" in err
    found = json.loads(out)
    assert (found["captured"], len(found["obstacles"])) == (False, 3)
    assert main(["explain-capture", "obstructed_shop:good"]) == 0
    assert "captured as one graph" in capsys.readouterr().out


class TakesALock(nn.Module):
    """Is captured after its first call only."""

    ready = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.ready:
            with LOCK:
                self.ready = True
        return x * 2


class KeepsAMask(nn.Module):
    """Is captured without what it keeps only."""

    mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None or len(self.mask) != len(x):
            self.mask = torch.ones(len(x), len(x)).tril()
        return self.mask @ x


@pytest.mark.thorough
@pytest.mark.parametrize("cls", [TakesALock, KeepsAMask])
def test_a_model_that_keeps_something_is_captured_as_by_a_build(cls: type[nn.Module]) -> None:
    model = cls()
    dims = {"x": {0: hotstart.Dim("rows", max=8)}}
    assert not hotstart.explain_capture(model, (torch.zeros(2, 3),), dynamic_shapes=dims).error
    assert not model.__dict__.keys() & {"ready", "mask"}
