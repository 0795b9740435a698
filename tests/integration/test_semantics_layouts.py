"""Strides of arguments and weights, ties, and tensors that are constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.semantics import assert_same, both, build, check, mostly_eager

R = torch.randn


# --- strides -------------------------------------------------------------------------------------


@both
def test_arguments_of_any_strides(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * 2, x.sum(0), x.t() + 1

    given = [R(4, 6), R(6, 4).t(), R(4, 1).expand(4, 6), R(4, 12)[:, ::2], R(5, 6)[1:]]
    program = build(f, given[0], compiler=compiler)
    transposed = build(f, given[1], compiler=compiler)
    for x in given:
        assert_same(program(x), f(x), 1e-6)
        assert_same(transposed(x), f(x), 1e-6)


@mostly_eager
def test_weights_of_any_strides(compiler: str) -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("expanded", R(1, 4).expand(3, 4))
            self.register_buffer("transposed", R(4, 3).t())
            self.register_buffer("gaps", R(3, 8)[:, ::2])
            self.register_buffer("later", R(5, 4)[2:])

        def forward(self, x: Tensor) -> Tensor:
            return x + self.expanded + self.transposed * self.gaps @ self.later.t() @ x

    check(Strided(), (R(3, 4),), compiler=compiler, tolerance=1e-5)


@pytest.mark.parametrize(
    ("make", "shape", "layout"),
    [
        (lambda: nn.Conv2d(3, 4, 3), (2, 3, 8, 8), torch.channels_last),
        (lambda: nn.Conv3d(3, 4, 3), (2, 3, 5, 5, 5), torch.channels_last_3d),
    ],
)
@mostly_eager
def test_channels_last(make: Any, shape: Any, layout: Any, compiler: str) -> None:
    model = nn.Sequential(make(), nn.ReLU()).to(memory_format=layout)
    x = R(shape)
    calls = [(x.contiguous(memory_format=layout),), (x,)]
    program = check(model, *calls, compiler=compiler, tolerance=1e-5)
    assert program(*calls[0]).is_contiguous(memory_format=layout)
    assert program.relayouts == {"input": 2}  # the two calls with another layout


@mostly_eager
def test_one_tensor_as_two_arguments(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, x @ y.t()

    x, y = R(3, 4), R(3, 4)
    apart, same = (build(f, x, other, compiler=compiler) for other in (y, x))
    for program in (apart, same):
        assert_same(program(x, x), f(x, x), 1e-5)
        assert_same(program(x, y), f(x, y), 1e-5)


# --- ties and constants --------------------------------------------------------------------------


@mostly_eager
def test_tied_weights(compiler: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    model = Tied()
    program = check(model, (torch.randint(0, 10, (2, 3)),), compiler=compiler, tolerance=1e-5)
    (spec,) = program.artifact.requirements.weights
    assert {spec.name, *spec.ties} == {"embed.weight", "head.weight"}


GLOBAL = R(4)


class Constants(nn.Module):
    """Keeps tensors in every place Python has."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = R(4)
        self.listed = [R(4), R(4)]
        self.mapped = {"a": R(4)}
        self.number = 3.5
        self.array = np.arange(4, dtype=np.float32)
        closed = R(4)
        self.function = lambda x: x + closed

    def forward(self, x: Tensor) -> Tensor:
        made = torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.full((4,), 2.0) + torch.arange(4)
        kept = self.plain + self.listed[1] + self.mapped["a"] * self.number + GLOBAL
        return self.function(x) + kept * made + torch.from_numpy(self.array)


@mostly_eager
def test_tensors_that_no_module_registers(compiler: str) -> None:
    model = Constants()
    program = check(model, (R(3, 4),), compiler=compiler, tolerance=1e-5, reference=model)
    x = R(3, 4)
    model.plain = R(4)  # an attribute is looked up again
    model.listed[1].add_(1)  # the same tensor with other contents
    assert_same(program(x), model(x), 1e-5)


def test_a_tensor_in_a_list_is_the_one_of_the_build() -> None:
    model = Constants()
    program = build(model, R(3, 4))
    x = R(3, 4)
    before, tensor = model(x), model.listed[1]
    assert_same(program(x), before, 1e-5)
    model.listed[1] = tensor.clone()  # another of the same contents
    assert_same(program(x), before, 1e-5)
    model.listed[1] = R(4)
    with pytest.raises(hotstart.ModelMismatch, match=r"listed\[1\]"):
        program(x)
    model.listed[1] = tensor
    assert_same(program(x), before, 1e-5)


def test_numbers_are_part_of_the_contract() -> None:
    program = build(lambda x, n: x * n, R(3), np.float64(2))
    assert_same(program(torch.ones(3), np.float64(2)), torch.ones(3) * 2)
    with pytest.raises(hotstart.ContractError, match="n: got"):
        program(torch.ones(3), np.float64(3))
