"""Models that are built on x86-64 for 64-bit Arm, and run there. Only torch is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hotstart import Dim


class Layers(nn.Module):
    """Linears, and loops over elements with exponentials in them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(64, 256)
        self.norm = nn.LayerNorm(256)
        self.out = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(nn.functional.gelu(self.wide(x)))).softmax(-1)


class Images(nn.Module):
    """Convolutions of all channels and of each, norms, and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.each = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.mix = nn.Conv2d(16, 32, 1)
        self.pool = nn.MaxPool2d(2)
        self.out = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm(self.first(x)))
        x = self.pool(nn.functional.relu(self.mix(self.each(x) + x)))
        return self.out(x.mean((2, 3)))


class Block(nn.Module):
    """A layer of a decoder: attention of grouped heads with turned positions, and a gated part."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.RMSNorm(64), nn.RMSNorm(64)
        self.q, self.k, self.v = nn.Linear(64, 64), nn.Linear(64, 32), nn.Linear(64, 32)
        self.o = nn.Linear(64, 64, bias=False)
        self.gate, self.up = nn.Linear(64, 160, bias=False), nn.Linear(64, 160, bias=False)
        self.down = nn.Linear(160, 64, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = (f(y).unflatten(2, (-1, 16)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        seen = nn.functional.scaled_dot_product_attention(
            q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), is_causal=True
        )
        x = x + self.o(seen.transpose(1, 2).flatten(2))
        y = self.between(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Decoder(nn.Module):
    """Two layers of a decoder such as Llama's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 64)
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.RMSNorm(64)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], dtype=torch.float32)
        angles = torch.outer(places, 10000 ** (-torch.arange(0, 16, 2) / 16)).repeat(1, 2)
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.norm(x) @ self.embed.weight.T


class Functions(nn.Module):
    """What kernels compute of single elements, in several dtypes, and over rows."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        near = x.abs() + 0.5
        smooth = (x.exp(), x.sin(), x.cos(), x.tanh(), x.erf(), x.sigmoid(), x.atan(), x.expm1())
        of_positive = (
            near.log(),
            near.sqrt(),
            near.rsqrt(),
            near.log1p(),
            near.pow(1.7),
        )
        whole = (x * 100).to(torch.int64)
        integers = (whole // 7, whole % 7, whole << 2, whole & 12, whole.to(torch.int8), whole > 3)
        rows = (x.sum(-1), x.amax(-1), x.argmin(-1), x.cumsum(-1), x.std(-1), x.mean((0, 1)))
        lesser = [(x.to(d) * 1.5 + 1).sigmoid() for d in (torch.bfloat16, torch.float16)]
        doubles = (x.double().exp() / 3, x.round(), x.floor(), torch.where(x > 0, x, x.neg() * 2))
        return (*smooth, *of_positive, *integers, *rows, *lesser, *doubles)


class Steps(nn.Module):
    """A layer that torch gives to a library of the processor's, and one around it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.LSTM(16, 16, batch_first=True)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.steps(x)[0]).tanh()


@dataclass(frozen=True)
class Subject:
    """A model, how to call it, and where to compare.

    Attributes:
        make: builds it.
        inputs: an example for some sizes.
        shapes: the dynamic dimensions of its argument.
        sizes: to compare at: 0 or 1, the ends of ranges, and some in between.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[..., Tensor]
    shapes: Mapping[str, Mapping[int, Dim]]
    sizes: Sequence[tuple[int, ...]]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()


BATCH = Dim("batch", min=0, max=9)
SEQ = Dim("seq", max=33)
SUBJECTS: dict[str, Subject] = {
    "layers": Subject(
        Layers, lambda b: torch.randn(b, 64), {"x": {0: BATCH}}, ((0,), (1,), (2,), (9,))
    ),
    "images": Subject(
        Images,
        lambda b: torch.randn(b, 3, 32, 32),
        {"x": {0: Dim("batch", max=4)}},
        ((1,), (2,), (4,)),
    ),
    "decoder": Subject(
        Decoder,
        lambda b, s: torch.randint(0, 100, (b, s)),
        {"tokens": {0: Dim("batch", max=3), 1: SEQ}},
        ((1, 1), (1, 33), (2, 17), (3, 2), (3, 33)),
    ),
    "functions": Subject(
        Functions,
        lambda b, s: torch.randn(b, 3, s) * 3,
        {"x": {0: BATCH, 2: SEQ}},
        ((0, 5), (1, 2), (2, 16), (3, 31), (9, 33)),
    ),
    "steps": Subject(Steps, lambda s: torch.randn(2, s, 16), {"x": {1: SEQ}}, ((1,), (2,), (33,))),
}


def tolerance(made: Any) -> dict[str, float]:
    """How far a result may be from eager's: as far as rounding in its dtype goes."""
    wide = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float32: 2e-5, torch.float64: 1e-12}
    least = wide.get(made.dtype, 0.0)
    return {"rtol": least, "atol": least}
