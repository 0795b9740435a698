"""Models with a native form, and how they are built."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import hotstart
from hotstart import Dim, Options

PYTHON = Options(form="python")
NATIVE = Options(form="native")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.down(F.gelu(self.up(x)))


class Model(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 16)
        self.layers = nn.ModuleList([Block() for _ in range(depth)])

    def forward(self, ids: Tensor) -> dict[str, Any]:
        x = self.embed(ids)
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        for layer in self.layers:
            x = layer(x, mask)
        return {"last": x, "pooled": (x.mean(1), ids), "length": ids.shape[1]}


LENGTH = {"ids": {1: Dim("seq", min=1, max=9, sizes=[1])}}


def ids(length: int) -> Tensor:
    return torch.arange(2 * length).reshape(2, length) % 11


def build(model: Any, *args: Any, options: Options = NATIVE, **more: Any) -> hotstart.Program:
    return hotstart.compile(model, args=args, options=options, **more)


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x) * 2


class TurnedOtherwise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x) * 3
