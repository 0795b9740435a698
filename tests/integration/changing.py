"""A model that reads all that a model can read, for tests that change one thing at a time."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from tests.integration import changing_helpers
from tests.integration.changing_helpers import SETTINGS, scaled

LIMIT = 5.0
WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])


def shifted(x: Tensor) -> Tensor:
    return x + 1


class Config:
    """Values that forward reads, and one that it does not."""

    def __init__(self) -> None:
        self.alpha = 2.0
        self.name_or_path = "/some/folder"

    def factor(self) -> float:
        return self.alpha


class Layer(nn.Module):
    """A layer that reads constants of its own, of its class and of an object."""

    offset = 0.5

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.config = config
        self.act: Any = torch.relu

    def inner(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.config.factor()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.act(self.inner(x)) + self.offset)


class Changing(nn.Module):
    """Two layers, a tied weight, helpers of another file, globals and the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.layers = nn.ModuleList(Layer(self.config) for _ in range(2))
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.layers[0].linear.weight
        self.register_buffer("ones", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        if os.environ.get("HOTSTART_TEST_DOUBLE"):
            x = x * 2
        x = shifted(scaled(x)) + LIMIT + SETTINGS["bias"][0] + changing_helpers.EXTRA
        return self.head(x * WEIGHTS) + self.ones
