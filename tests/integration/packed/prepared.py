"""Programs with prepared weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hotstart
from hotstart import (
    Options,
)

ALWAYS = Options(pack_weights="always")
EAGER = Options(compiler="op_by_op")
X = torch.randn(3, 32)


class Net(nn.Module):
    """Linears, convolutions that are grouped and not, a tie, a table that no checkpoint has."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 32)
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)
        self.head = nn.Linear(32, 32, bias=False)
        self.head.weight = self.embed.weight
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.register_buffer("table", torch.randn(32), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) * (self.table * 2).cos()
        x = self.head(x + self.down(nn.functional.gelu(self.up(x))))
        image = self.grouped(self.norm(self.first(x.view(-1, 1, 4, 8))).relu())
        return x.view(-1, 32) + image.sum(1).view(-1, 32)


IDS = torch.arange(21).view(3, 7)


class Saved:
    """A model, its program in a file, and its prepared weights."""

    def __init__(self, folder: Path, model: nn.Module, *args: Any, **given: Any) -> None:
        self.model = model.eval()
        self.file, self.weights = folder / "model.hot", folder / "model.weights"
        self.program = hotstart.compile(model, args, **{"options": ALWAYS, **given})
        self.program.save(self.file, check=False)
        self.program.save_weights(self.weights)

    def load(self, **given: Any) -> hotstart.Program:
        return hotstart.load(self.file, **{"weights": self.weights, **given})
