"""Models of repeated blocks, and their graphs compared with those of whole traces."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hotstart import Call, Dim
from qualification.captures import differences, traced

BLOCKS = 4


class Block(nn.Module):
    """A linear and a norm; the classes below change one thing about it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.linear = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Any:
        return x + self.norm(self.linear(x)).relu()


class Stack(nn.Module):
    """Blocks one after the other."""

    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block(number) for number in range(BLOCKS))

    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


def given() -> Call:
    return Call(args=(torch.randn(5, 8),), dynamic_shapes={"x": {0: Dim("rows", min=1, max=9)}})


def compared(model: nn.Module, caplog: pytest.LogCaptureFixture) -> tuple[list[str], int]:
    """What differs from a whole trace, and how many blocks were repeated in each trace."""
    caplog.set_level(logging.DEBUG, "hotstart")
    once = traced(model, given(), "blocks_once")
    found = repeats(caplog)
    return list(differences(once, traced(model, given(), "whole"))), found


def repeats(caplog: pytest.LogCaptureFixture) -> int:
    """How many calls of blocks the first trace repeated."""
    told = [r.args for r in caplog.records if "repeat others" in str(r.msg)]
    assert not [r for r in caplog.records if "for itself: " in r.getMessage()]
    return int(told[0][0]) if told else 0  # type: ignore[index, call-overload]
