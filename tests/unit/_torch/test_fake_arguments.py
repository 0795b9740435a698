"""Calls in which arguments are fake, and what does not depend on them is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hotstart._torch.dynamo.fake_arguments import FakeArguments, TooLarge, fakes_of
from hotstart._torch.graphs.symbols import is_fake

WEIGHT = torch.arange(4.0)


def called(function: Callable[[Tensor], Any], weights: tuple[Tensor, ...] = ()) -> FakeArguments:
    mode = FakeArguments(fakes_of(weights), weights)
    x = mode.argument([2, 4], (4, 1), dtype=torch.float32, device="cpu")
    mode.run(partial(function, x))
    del x
    mode.finish()
    return mode


def kept_by(function: Callable[[Tensor], Any]) -> tuple[Any, FakeArguments]:
    kept: list[Any] = []
    mode = called(lambda x: kept.append(function(x)))
    return kept[0], mode


def test_what_no_argument_takes_part_in_is_computed() -> None:
    table, mode = kept_by(lambda x: torch.arange(x.shape[1]) * 2)
    assert torch.equal(table, torch.tensor([0, 2, 4, 6]))
    assert not mode.outlived()


@pytest.mark.parametrize(
    "function", [lambda x: x * 2, lambda x: x[0], lambda x: WEIGHT + x, torch.rand_like]
)
def test_what_an_argument_takes_part_in_is_fake(function: Callable[[Tensor], Tensor]) -> None:
    made, mode = kept_by(function)
    assert is_fake(made)
    assert mode.outlived()
    del made
    assert not mode.outlived()


@pytest.mark.parametrize(
    "function", [lambda x: x.new_full((2, 4), 3), lambda x: torch.full_like(x, 3)]
)
def test_what_takes_the_form_of_an_argument_alone_is_computed(
    function: Callable[[Tensor], Tensor],
) -> None:
    made, _ = kept_by(function)
    assert torch.equal(made, torch.full((2, 4), 3.0))
    assert made.stride() == (4, 1)


def test_what_is_filled_is_fake_where_it_is_large() -> None:
    made, _ = kept_by(lambda x: torch.zeros_like(x.expand(1 << 22, 2, 4)))
    assert is_fake(made)


def _filled(x: Tensor) -> Tensor:
    table = torch.zeros(4, 4)
    table[:2] = x
    return table


@pytest.mark.parametrize(
    "then", [lambda t: t, lambda t: t[2:], lambda t: t.mul_(2), lambda t: t + 1]
)
def test_memory_that_an_argument_was_written_to_has_no_values(
    then: Callable[[Tensor], Tensor],
) -> None:
    made, mode = kept_by(lambda x: then(_filled(x)))
    assert mode.outlived()
    del made
    assert not mode.outlived()


def test_writes_to_weights_are_undone_and_noted() -> None:
    weight = torch.ones(4)
    mode = called(lambda x: x + weight.mul_(2), (weight,))
    assert torch.equal(weight, torch.ones(4))
    assert mode.steps[-1] == ("writes", 0)
    assert called(lambda x: x + weight.mul_(1), (weight,)).steps[-1][0] == "return"
    mode = called(lambda x: weight.add_(x[0]), (weight,))
    assert torch.equal(weight, torch.ones(4))
    assert mode.steps[-1] == ("writes", 0)


def test_the_same_computation_has_the_same_steps() -> None:
    weights = (torch.ones(4), torch.ones(4))

    def steps(function: Callable[[Tensor], Any]) -> list[Any]:
        return called(function, weights).steps

    assert steps(lambda x: x + torch.ones(4)) == steps(lambda x: x + torch.full((4,), 1.0))
    assert steps(lambda x: x + torch.ones(4)) != steps(lambda x: x + torch.zeros(4))
    assert steps(lambda x: x + weights[0]) != steps(lambda x: x + weights[1])
    assert steps(lambda x: x * 2) != steps(lambda x: x * 3)
    assert steps(lambda x: (x * 2, x + 1)[0]) != steps(lambda x: (x * 2, x + 1)[1])
    assert steps(lambda x: x @ x.T) != steps(lambda x: x.T @ x)


def test_a_tensor_that_is_too_large_is_not_computed() -> None:
    with pytest.raises(TooLarge):
        called(lambda x: x + torch.ones(1 << 29)[:4])
