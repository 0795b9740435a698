"""Arithmetic that is written with other operators gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from hotstart._torch.inductor.cheaper import sigmoid_for_tanh

EXTREMES = torch.tensor([0.0, -0.0, 1e-30, -20.0, 20.0, 3e38, -3e38, float("inf"), -float("inf")])


def rewritten(function: Callable[..., Tensor], *args: Tensor) -> fx.GraphModule:
    graph = make_fx(function)(*args)
    FakeTensorProp(graph).propagate(*args)
    sigmoid_for_tanh(graph.graph)
    graph.recompile()
    return graph


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0))))


def in_another_order(x: Tensor) -> Tensor:
    return (torch.tanh(0.8 * (x + 0.04 * x * x * x)) + 1.0) * (x * 0.5)


def of_two(x: Tensor) -> Tensor:
    """The sum is used twice, once in another way."""
    sum_ = 1.0 + torch.tanh(x)
    return 0.5 * x * sum_ + sum_


@pytest.mark.parametrize("function", [gelu, in_another_order, of_two])
def test_it_is_as_exact(function: Callable[..., Tensor]) -> None:
    x = torch.cat([EXTREMES, torch.linspace(-12.0, 12.0, 4001)])
    graph = rewritten(function, x)
    assert "sigmoid" in graph.code
    exact = function(x.double()).float()
    torch.testing.assert_close(graph(x), exact, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.tanh(x) * x * 0.5,
        lambda x: (torch.tanh(x) + 2.0) * (x * 0.5),
        lambda x: (torch.tanh(x) + 1.0) * (x * 0.25),
        lambda x: (torch.tanh(x) + 1.0) * (x + 0.5),
        lambda x: torch.add(torch.tanh(x), 1.0, alpha=2) * (x * 0.5),
        lambda x: (1.0 + torch.tanh(x)) * (1.0 + torch.tanh(x)),
    ],
)
def test_other_arithmetic_stays(function: Callable[..., Tensor]) -> None:
    x = torch.linspace(-3.0, 3.0, 101)
    graph = rewritten(function, x)
    assert "sigmoid" not in graph.code
    assert torch.equal(graph(x), function(x))


def test_other_precisions_stay() -> None:
    assert "sigmoid" not in rewritten(gelu, torch.randn(8, dtype=torch.float64)).code
