"""Programs that run op by op, for tests that state a behaviour of every program."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import hotstart
from hotstart import Dim

EAGER = hotstart.Options(compiler="op_by_op")
ANY = Dim("n", min=1, max=16)


def build(model: Any, *args: Any, options: hotstart.Options = EAGER, **more: Any) -> Any:
    return hotstart.compile(model, args, options=options, **more)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.relu(x * self.weight)
