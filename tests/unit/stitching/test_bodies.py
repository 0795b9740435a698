"""Bodies of higher-order operators become functions inside the generated code."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.capturing import compiled


def test_a_body_is_a_function_and_a_wrapped_one_is_called_directly() -> None:
    @torch.compiler.nested_compile_region
    def region(v: Tensor) -> Tensor:
        return v.sin() + 1

    def f(x: Tensor) -> Tensor:
        y = region(region(x))
        return torch.cond(y.sum() > 0, torch.cos, lambda v: v * 2, (y,))

    program = compiled(f, torch.ones(3))
    (unit,) = program.artifact.units
    assert "def cond_false" in unit.source
    assert "def subgraph" in unit.source
    assert "higher_order.invoke_subgraph" not in unit.source
    assert torch.equal(program(torch.ones(3)), f(torch.ones(3)))


def test_values_in_a_body_are_released_after_their_last_use() -> None:
    def branch(v: Tensor) -> Tensor:
        first = v.sin()
        second = first.cos()
        return second + 1

    def f(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, branch, branch, (x,))

    (unit,) = compiled(f, torch.ones(3)).artifact.units
    assert unit.source.count("del first") == 2
