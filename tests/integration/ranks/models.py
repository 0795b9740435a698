"""Models over several ranks, each with the same model in one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

import hotstart

HIDDEN, HEADS, KV_HEADS, HEAD, FEED, WORDS, LAYERS = 32, 8, 4, 8, 48, 64, 3
IDS = torch.arange(16).reshape(2, 8) * 5 % WORDS
SEQ = {"ids": {1: hotstart.Dim("seq", min=2, max=16)}}


def share_of(weight: Tensor, number: int, size: int, dim: int) -> Tensor:
    """The part of a weight that a rank has; the first ranks have more where it does not divide."""
    return weight.detach().tensor_split(size, dim)[number].clone().contiguous()


class Column(nn.Module):
    """A linear that computes some of its outputs."""

    def __init__(self, whole: nn.Linear, number: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(share_of(whole.weight, number, size, 0))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class Row(nn.Module):
    """A linear that reads some of its inputs; the ranks add up what they have."""

    def __init__(self, whole: nn.Linear, number: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(share_of(whole.weight, number, size, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = linear(x, self.weight)
        dist.all_reduce(y)
        return y


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(HIDDEN) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotated(x: Tensor) -> Tensor:
    """Rotate halves of heads by their positions."""
    half = x.shape[-1] // 2
    places = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)
    steps = 100.0 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angles = places[:, None] * steps
    a, b = x.split(half, dim=-1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(HIDDEN, HEADS * HEAD, bias=False)
        self.k = nn.Linear(HIDDEN, KV_HEADS * HEAD, bias=False)
        self.v = nn.Linear(HIDDEN, KV_HEADS * HEAD, bias=False)
        self.o = nn.Linear(HEADS * HEAD, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (each(x).view(batch, length, -1, HEAD).transpose(1, 2) for each in
                   (self.q, self.k, self.v))  # fmt: skip
        k, v = (each.repeat_interleave(HEADS // KV_HEADS, 1) for each in (rotated(k), v))
        mixed = scaled_dot_product_attention(rotated(q), k, v, is_causal=True)
        return self.o(mixed.transpose(1, 2).reshape(batch, length, -1))


class Feed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(HIDDEN, FEED, bias=False)
        self.up = nn.Linear(HIDDEN, FEED, bias=False)
        self.down = nn.Linear(FEED, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.attention = Norm(), Attention()
        self.after, self.feed = Norm(), Feed()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.feed(self.after(x))


class Llama(nn.Module):
    """A Llama as one process has it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()
        self.head = nn.Linear(HIDDEN, WORDS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def llama() -> Llama:
    """The same weights in every process."""
    torch.manual_seed(0)
    return Llama().eval()


def parallel_llama(number: int, size: int) -> Llama:
    """What a rank has of it: some heads, and some of the feed-forward."""
    model = llama()
    for layer in model.layers:
        for owner, columns, row in (
            (layer.attention, ("q", "k", "v"), "o"),
            (layer.feed, ("gate", "up"), "down"),
        ):
            for name in columns:
                setattr(owner, name, Column(getattr(owner, name), number, size))
            setattr(owner, row, Row(getattr(owner, row), number, size))
    return model


class Experts(nn.Module):
    """A mixture of experts, of which a rank may have some. Two experts are taken for each token.

    `here` has the numbers of those that this rank has: a tensor, which each rank has its own of.
    """

    def __init__(self, experts: int, hidden: int = 16, feed: int = 24) -> None:
        super().__init__()
        self.router = nn.Linear(hidden, experts)
        self.up = nn.Parameter(torch.randn(experts, hidden, feed) / hidden**0.5)
        self.down = nn.Parameter(torch.randn(experts, feed, hidden) / feed**0.5)
        self.register_buffer("here", torch.arange(experts))

    def forward(self, x: Tensor) -> Tensor:
        chances, chosen = self.router(x).softmax(-1).topk(2)
        shares = (chances[..., None] * (chosen[..., None] == self.here)).sum(-2)
        each = torch.relu(torch.einsum("th,ehf->etf", x, self.up))
        mixed = torch.einsum("etf,efh,te->th", each, self.down, shares)
        return x + self.over_all(mixed)

    def over_all(self, mixed: Tensor) -> Tensor:
        return mixed


class ParallelExperts(Experts):
    """A rank's part of them: every rank has all tokens, and they add up what they have."""

    def over_all(self, mixed: Tensor) -> Tensor:
        return functional.all_reduce(mixed, "sum", dist.group.WORLD)


class ExchangingExperts(nn.Module):
    """One expert on each rank; the ranks have different tokens, and exchange them.

    Of a rank's tokens the first go to the first rank's expert, and so on, and come back.
    """

    def __init__(self, number: int, hidden: int = 16) -> None:
        super().__init__()
        torch.manual_seed(number)
        self.expert = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        theirs, back = torch.empty_like(x), torch.empty_like(x)
        dist.all_to_all_single(theirs, x)
        dist.all_to_all_single(back, torch.tanh(self.expert(theirs)))
        return x + back


def experts(experts: int = 8) -> Experts:
    torch.manual_seed(0)
    return Experts(experts).eval()


def parallel_experts(number: int, size: int, count: int = 8) -> ParallelExperts:
    """The experts of one rank, with the router of all of them."""
    whole = experts(count)
    part = ParallelExperts(count).eval()
    part.router = whole.router
    part.up = nn.Parameter(share_of(whole.up, number, size, 0))
    part.down = nn.Parameter(share_of(whole.down, number, size, 0))
    part.here = share_of(whole.here, number, size, 0)
    return part


class Uneven(nn.Module):
    """Two linears with five columns, of which the ranks have three and two."""

    def __init__(self, number: int, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        up, down = nn.Linear(6, 5, bias=False), nn.Linear(5, 6, bias=False)
        self.up, self.down = Column(up, number, size), Row(down, number, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))
