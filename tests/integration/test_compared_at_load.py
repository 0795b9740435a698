"""What a module was asked for, holds or calls when a program was built is compared at load."""

from __future__ import annotations

import collections
import copy
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.semantics import build
from tests.versions import knows_derived_constants


class Asking(nn.Module):
    """Asks what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Any = {"k": 1}
        self.tags = {"a"}

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "extra"):
            x = x * 2
        if "z" in self.given:
            x = x * 3
        if "z" in self.tags:
            x = x * 5
        for key in self.given:
            x = x + len(key)
        return x


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extra", 1),
        ("given", {"z": 1}),
        ("given", {"kk": 1}),
        ("given", {"k": 1, "l": 1}),
        ("tags", {"z"}),
    ],
)
def test_what_a_module_was_asked_for_is_compared_at_load(
    name: str, value: Any, tmp_path: Path
) -> None:
    build(Asking(), torch.zeros(4, 8)).save(tmp_path / "model.hot", check=False)
    hotstart.load(tmp_path / "model.hot", Asking())
    changed = Asking()
    setattr(changed, name, value)
    with pytest.raises(hotstart.ModelMismatch, match=name):
        hotstart.load(tmp_path / "model.hot", changed)


class OwnList(list[float]):
    """Not Python's."""


class OwnDict(dict[str, float]):
    """Not Python's."""


class OwnText(str):
    """Not Python's."""

    __slots__ = ()


class OwnNumber(float):
    """Not Python's."""

    __slots__ = ()


class Held(nn.Module):
    """Computes with whatever it holds."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.given, str):
            return x * 2 if self.given == "two" else x * 3
        if isinstance(self.given, float):
            return x * self.given
        if isinstance(self.given, dict):
            return x * self.given["by"]
        for value in self.given:
            x = x * value
        return x


@pytest.mark.parametrize(
    ("given", "another"),
    [
        ((2.0,), (3.0,)),
        ({2.0}, {3.0}),
        (frozenset({2.0}), frozenset({3.0})),
        (range(1, 3), range(1, 4)),
        (collections.deque([2.0]), collections.deque([3.0])),
        (OwnList([2.0]), OwnList([3.0])),
        (OwnDict(by=2.0), OwnDict(by=3.0)),
        pytest.param(OwnText("two"), OwnText("three"), marks=knows_derived_constants),
        pytest.param(OwnNumber(2.0), OwnNumber(3.0), marks=knows_derived_constants),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_module_holds_is_compared_at_load(given: Any, another: Any, tmp_path: Path) -> None:
    x = torch.randn(3)
    build(Held(given), x).save(tmp_path / "model.hot", check=False)
    program = hotstart.load(tmp_path / "model.hot", Held(copy.deepcopy(given)))
    assert torch.equal(program(x), Held(given)(x))
    with pytest.raises(hotstart.ModelMismatch, match="given"):
        hotstart.load(tmp_path / "model.hot", Held(another))


@pytest.mark.parametrize(
    ("name", "value"), [("stride", (2,)), ("padding", (2,)), ("dilation", (2,)), ("groups", 2)]
)
def test_what_a_convolution_was_made_with_is_compared_at_load(
    name: str, value: Any, tmp_path: Path
) -> None:
    def convolution() -> nn.Module:
        return nn.Conv1d(4, 4, 3, padding=(1,))

    build(convolution(), torch.randn(2, 4, 8)).save(tmp_path / "model.hot", check=False)
    hotstart.load(tmp_path / "model.hot", convolution())
    changed = convolution()
    setattr(changed, name, value)
    with pytest.raises(hotstart.ModelMismatch, match=rf"{name}: expected .*, found"):
        hotstart.load(tmp_path / "model.hot", changed)


class Shared(nn.Module):
    """Holds an object in its class."""

    settings: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return x * self.settings.by


def test_what_an_object_of_the_class_holds_is_compared_at_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(3)
    monkeypatch.setattr(Shared, "settings", types.SimpleNamespace(by=2.0))
    build(Shared(), x).save(tmp_path / "model.hot", check=False)
    assert torch.equal(hotstart.load(tmp_path / "model.hot", Shared())(x), x * 2)
    monkeypatch.setattr(Shared.settings, "by", 3.0)
    with pytest.raises(hotstart.ModelMismatch, match=r"settings.*by.*: expected 2\.0, found 3\.0"):
        hotstart.load(tmp_path / "model.hot", Shared())


class Activated(nn.Module):
    """Holds a function, and an object with a method."""

    def __init__(self, act: Any, scale: Any) -> None:
        super().__init__()
        self.act, self.scale = act, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x) * self.scale.of()


class Double:
    def of(self) -> float:
        return 2.0


class Triple:
    def of(self) -> float:
        return 3.0


class Raised(nn.Module):
    by: Any = 0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


@pytest.mark.parametrize(
    ("act", "scale", "named"),
    [
        (torch.tanh, Double(), r"act: expected torch.*relu, found torch.*tanh"),
        (lambda x: x + 1, Double(), "act: expected"),
        (torch.relu, Triple(), r"scale: expected .*Double, found .*Triple"),
    ],
)
def test_another_function_or_object_in_a_module_is_refused_at_load(
    act: Any, scale: Any, named: str, tmp_path: Path
) -> None:
    x = torch.randn(3)
    build(Activated(torch.relu, Double()), x).save(tmp_path / "model.hot", check=False)
    program = hotstart.load(tmp_path / "model.hot", Activated(torch.relu, Double()))
    assert torch.equal(program(x), torch.relu(x) * 2)
    with pytest.raises(hotstart.ModelMismatch, match=named):
        hotstart.load(tmp_path / "model.hot", Activated(act, scale))


def test_equal_constants_of_different_types_are_different_facts(tmp_path: Path) -> None:
    model = nn.Sequential(*(Activated(torch.relu, Double()) for _ in range(3)))
    for layer, constant in zip(model, (1, 1.0, True), strict=True):
        layer.act = Raised()
        layer.act.by = constant
    build(model, torch.randn(3)).save(tmp_path / "model.hot", check=False)
    hotstart.load(tmp_path / "model.hot", model)
    model[0].act.by, model[1].act.by = 1.0, 1
    with pytest.raises(hotstart.ModelMismatch, match=r"0\.act\.by: expected 1, found 1\.0"):
        hotstart.load(tmp_path / "model.hot", model)
