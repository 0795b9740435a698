"""Models whose weights are packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options

Shapes = dict[str, Any]


class Mlp(nn.Module):
    def __init__(self, wide: int = 48) -> None:
        super().__init__()
        self.up = nn.Linear(32, wide)
        self.down = nn.Linear(wide, 32)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(x)))


def same(model: Callable[..., Any], program: hotstart.Program, *args: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(program(*args), model(*args), rtol=1e-4, atol=1e-5)


ROWS: Shapes = {"x": {0: Dim("rows", min=1, max=64)}}
ALWAYS = Options(pack_weights="always")
