"""The default dtype and device of torch, which forward may compute by and no call passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hotstart

OP_BY_OP = hotstart.Options(compiler="op_by_op")
X = torch.arange(4)


@pytest.fixture(autouse=True)
def default_float32() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


READ: dict[str, Callable[[Tensor], Tensor]] = {
    "made": lambda x: torch.zeros(3) + x.shape[0],
    "divided": lambda x: x / 2,
    "in a branch": lambda x: torch.cond(
        x.sum() > 9, lambda x: (x / 3).int(), lambda x: x.int(), (x,)
    ),
}
NOT_READ: dict[str, Callable[[Tensor], Tensor]] = {
    "said": lambda x: torch.zeros(3, dtype=torch.float32) + x.to(torch.float32).sum(),
    "of a tensor": lambda x: x.float().softmax(0) / 3 + torch.zeros_like(x.double()),
    "whole": lambda x: x * 2 + torch.arange(4),
}


@pytest.mark.parametrize("forward", READ.values(), ids=READ)
def test_another_default_dtype_is_refused_where_forward_computes_by_it(
    forward: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    hotstart.compile(forward, (X,), options=OP_BY_OP).save(tmp_path / "p.hot", check=False)
    loaded = hotstart.load(tmp_path / "p.hot", forward)
    expected = forward(X)
    torch.set_default_dtype(torch.float64)
    with pytest.raises(hotstart.ContractError, match=r"default dtype: got torch\.float64"):
        loaded(X)
    torch.set_default_dtype(torch.float32)
    assert torch.equal(loaded(X), expected)


@pytest.mark.parametrize("forward", NOT_READ.values(), ids=NOT_READ)
def test_any_default_dtype_is_taken_where_nothing_depends_on_it(
    forward: Callable[[Tensor], Tensor],
) -> None:
    program = hotstart.compile(forward, (X,), options=OP_BY_OP)
    expected = program(X)
    torch.set_default_dtype(torch.float64)
    assert torch.equal(program(X), expected)
    assert program(X).dtype == expected.dtype


def test_a_file_is_checked_under_the_default_dtype_of_the_build(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    forward = READ["made"]
    hotstart.compile(forward, (X,), options=OP_BY_OP).save(tmp_path / "p.hot")
    assert hotstart.load(tmp_path / "p.hot", forward)(X).dtype == torch.float64


def test_another_default_device_is_refused_where_forward_makes_tensors() -> None:
    program = hotstart.compile(READ["made"], (X,), options=OP_BY_OP)
    elsewhere = hotstart.compile(READ["divided"], (X,), options=OP_BY_OP)
    said = hotstart.compile(lambda x: x + torch.ones(4, device="cpu"), (X,), options=OP_BY_OP)
    with torch.device("meta"):
        with pytest.raises(hotstart.ContractError, match="default device: got meta, takes cpu"):
            program(X)
        assert elsewhere(X).device.type == said(X).device.type == "cpu"
    assert program(X).device.type == "cpu"
    torch.set_default_device("meta")
    try:
        with pytest.raises(hotstart.ContractError, match="default device: got meta, takes cpu"):
            program(X)
    finally:
        torch.set_default_device(None)
    with torch.device("cpu"):
        assert program(X).device.type == "cpu"
