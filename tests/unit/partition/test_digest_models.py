"""Layers of a model have the same digest exactly if one's code serves the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hotstart import Dim
from tests.capturing import digests, planned


class Layer(nn.Module):
    def __init__(self, scale: Any = 2, width: int = 8, act: Any = torch.relu) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, width), nn.Linear(width, 8)
        self.scale, self.act = scale, act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(x))) * self.scale + x


class Renamed(nn.Module):
    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({f"odd_{i}": layer for i, layer in enumerate(layers)})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for layer in self.stem.values():
            tokens = layer(tokens)
        return tokens


X = torch.randn(4, 8)


def test_modules_weights_and_arguments_may_be_renamed() -> None:
    layers = [Layer(), Layer(), Layer()]
    first, second = planned(nn.Sequential(*layers), X), planned(Renamed(layers), X)
    assert digests(first) == digests(second)
    assert len(set(digests(first))) == 1


@pytest.mark.parametrize(
    "odd", [Layer(2.0), Layer(True), Layer(3), Layer(width=4), Layer(act=F.relu)]
)
def test_a_layer_that_differs_in_one_thing_is_not_reused(odd: Layer) -> None:
    made = digests(planned(nn.Sequential(Layer(), odd, Layer()), X))
    assert made[0] == made[2] != made[1]


def test_a_layer_whose_weight_has_other_strides_is_not_reused() -> None:
    odd = Layer()
    odd.up.weight = nn.Parameter(torch.randn(8, 8).t())
    made = digests(planned(nn.Sequential(Layer(), odd, Layer()), X))
    assert made[0] == made[2] != made[1]


def reshapes(x: torch.Tensor) -> torch.Tensor:
    batch, seq = x.shape[:2]
    y = torch.relu(x.reshape(batch * seq, 8) + 1)
    y = torch.sigmoid(y)
    return y.reshape(seq, batch, 8) * batch


@pytest.mark.parametrize("names", list(itertools.permutations(["a", "b", "zz"], 2)))
@pytest.mark.parametrize("split_on", ["auto", ["aten::sigmoid"]])
def test_axes_may_be_renamed(names: tuple[str, str], split_on: Any) -> None:
    def made(first: str, second: str) -> list[str]:
        dims = {0: Dim(first, min=2, max=8), 1: Dim(second, min=2, max=8)}
        x = torch.randn(4, 6, 8)
        return digests(planned(reshapes, x, split_on=split_on, dynamic={"x": dims}))

    assert made(*names) == made("batch", "seq")


def test_expressions_over_axes_count() -> None:
    def made(function: Callable[..., Any]) -> str:
        dims = {0: Dim("b", min=2, max=8), 1: Dim("s", min=2, max=8)}
        x = torch.randn(4, 6, 8)
        return digests(planned(function, x, dynamic={"x": dims}))[0]

    functions = [
        lambda x: x.new_zeros(x.size(0)) + 1,
        lambda x: x.new_zeros(x.size(1)) + 1,
        lambda x: x.new_zeros(x.size(0) + 1) + 1,
        lambda x: x.new_zeros(x.size(0) * 2) + 1,
        lambda x: x.new_zeros(x.size(0) // 2) + 1,
        lambda x: x.new_zeros(4) + 1,
    ]
    assert len(set(map(made, functions))) == len(functions)


def test_a_static_size_is_told_apart_from_a_dynamic_one() -> None:
    dynamic = digests(planned(torch.nn.ReLU(), X, dynamic={"input": {0: Dim("b", max=8)}}))
    assert dynamic != digests(planned(torch.nn.ReLU(), X))


def test_outputs_count() -> None:
    def both(x: torch.Tensor) -> Any:
        y = x * 2
        return y, y + 1

    def last(x: torch.Tensor) -> Any:
        y = x * 2
        return y + 1

    assert digests(planned(both, X)) != digests(planned(last, X))
