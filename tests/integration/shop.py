"""Models that tests save in one process and load in another."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Result:
    scores: Tensor
    notes: Any = None


class Gate(enum.Enum):
    HALF = 0.5
    FULL = 1.0


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.gate(self.up(self.norm(x))))


class Shop(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(depth)])

    def forward(self, x: Tensor) -> Result:
        for layer in self.layers:
            x = layer(x)
        return Result(x.softmax(-1), ("shop", 1.5))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        return x + self.seen


class Turned(nn.Module):
    def forward(
        self, x: Tensor, *, mode: Gate, extra: dict[str, Any], at: slice = slice(None)
    ) -> Result:
        other, (factor, _) = extra["a"]
        return Result(x * mode.value + other[at] * factor, {"mode": mode, "kind": torch.float16})
