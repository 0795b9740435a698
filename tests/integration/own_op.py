"""A model with an operator of its own, which is there once this module was imported."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.library.custom_op("hotstart_tests::halve", mutates_args=())
def halve(x: Tensor) -> Tensor:
    return x / 2


@halve.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Halving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(halve(x)) + 1
