"""Arguments that forward takes by `**kwargs`: a program takes them by name, in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import hotstart

OP_BY_OP = hotstart.Options(compiler="op_by_op")
A, B, C = torch.ones(3), torch.full((3,), 5.0), torch.full((3,), 7.0)


def written(**kw: Tensor) -> Tensor:
    y = kw["a"] * 1
    y.add_(kw["a"])
    y.mul_(kw["b"])
    return y


IN_ANY_ORDER: dict[str, Callable[..., Any]] = {
    "by name": lambda **kw: kw["a"] - kw["b"] * 2,
    "passed on": lambda **kw: (lambda a, b, c: a * 2 - b / c)(**kw),
    "a dict": lambda **kw: {name: value * 2 for name, value in kw.items()},
    "a loop that looks for one": lambda **kw: [v * 2 for k, v in kw.items() if k == "b"],
    "written": written,
}
IN_ORDER: dict[str, Callable[..., Any]] = {
    "numbered": lambda **kw: torch.cat([v * i for i, v in enumerate(kw.values())]),
    "joined": lambda **kw: torch.cat(list(kw.values())),
    "the first": lambda **kw: next(iter(kw.values())) * 2,
    "the first and the last": lambda **kw: next(iter(kw.values())) + [*kw.values()][-1],
    "neighbours": lambda **kw: [*kw.values()][1] * 2,
}


@pytest.mark.parametrize("forward", IN_ANY_ORDER.values(), ids=IN_ANY_ORDER)
def test_where_the_order_does_not_matter_any_is_served(forward: Callable[..., Any]) -> None:
    program = hotstart.compile(forward, kwargs={"b": B, "a": A, "c": C}, options=OP_BY_OP)
    for given in ({"b": B, "a": A, "c": C}, {"c": C, "a": A, "b": B}):
        found, expected = program(**given), forward(**given)
        assert type(found) is type(expected)
        if isinstance(found, dict):
            found, expected = sorted(found.items()), sorted(expected.items())
        assert all(map(torch.equal, tensors(found), tensors(expected)))


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("forward", IN_ORDER.values(), ids=IN_ORDER)
def test_where_it_matters_the_model_is_refused(forward: Callable[..., Any]) -> None:
    with pytest.raises(hotstart.CaptureError, match=r"\*\*kwargs: what forward does depends on"):
        hotstart.compile(forward, kwargs={"b": B, "a": A, "c": C}, options=OP_BY_OP)


def test_the_order_of_constants_counts_as_well() -> None:
    with pytest.raises(hotstart.CaptureError, match="s, t, which compute something else"):
        hotstart.compile(
            lambda x, **kw: x * next(iter(kw.values())),
            kwargs={"x": A, "s": 2.0, "t": 3.0},
            options=OP_BY_OP,
        )


def test_one_argument_has_no_order() -> None:
    def forward(**kw: Tensor) -> Tensor:
        return next(iter(kw.values())) * 2

    program = hotstart.compile(forward, kwargs={"a": A}, options=OP_BY_OP)
    assert torch.equal(program(a=A), A * 2)
