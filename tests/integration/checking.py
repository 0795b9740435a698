"""Models whose operators do not take any values, and operators of their own."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.nn import functional


@torch.library.custom_op("hotstart_check::partly", mutates_args=("out",))
def partly(q: Tensor, out: Tensor, name: str) -> None:
    """Attention of a server: writes the rows that are asked for, and leaves the others alone."""
    assert name == "layer"
    out[: len(q) // 2] = q[: len(q) // 2] * 2


@partly.register_fake
def _(q: Tensor, out: Tensor, name: str) -> None:
    return None


@torch.library.custom_op("hotstart_check::above", mutates_args=())
def above(x: Tensor, least: int) -> Tensor:
    """Takes no value below a number that nobody would guess."""
    if bool((x < least).any()):
        raise ValueError(f"expected values of {least} or more, found {int(x.min())}")
    return x * 2


@above.register_fake
def _(x: Tensor, least: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("hotstart_check::mortal", mutates_args=())
def mortal(x: Tensor) -> Tensor:
    """Ends the process for a negative number, as a bad index does in a kernel with threads."""
    if bool((x < 0).any()):
        os.abort()
    return x * 2


@mortal.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


LIMIT = 0
"""What a process has to set before the next operator runs."""


@torch.library.custom_op("hotstart_check::limit", mutates_args=())
def limit(x: Tensor) -> Tensor:
    """Runs where somebody set the limit."""
    if not LIMIT:
        raise RuntimeError("the limit was not set")
    return x * LIMIT


@limit.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("hotstart_check::allocate", mutates_args=())
def allocate(x: Tensor, rows: int) -> Tensor:
    """Returns memory of which it writes a part."""
    made = torch.empty(rows, x.shape[1])
    made[:2] = x[:2]
    return made


@allocate.register_fake
def _(x: Tensor, rows: int) -> Tensor:
    return x.new_empty(rows, x.shape[1])


class Particular(nn.Module):
    """Methods that take only some values; each is a case that made-up zeros break."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(7, 4))
        self.register_buffer("table", torch.randn(1000, 4))
        self.register_buffer("index", torch.tensor([[1, 7], [3, 2]]))

    def last(self, h: Tensor, n: Tensor) -> Tensor:
        return h.gather(1, (n - 1).view(-1, 1, 1).expand(-1, 1, h.shape[2])).squeeze(1)

    def noise(self, t: Tensor) -> Tensor:
        return self.table[(t * 999).long()]

    def classes(self, i: Tensor) -> Tensor:
        return functional.one_hot(i - 1, 5) * 2

    def padded(self, i: Tensor, table: Tensor) -> Tensor:
        return functional.embedding(i - 4, table, padding_idx=0)

    def repeated(self, x: Tensor, times: Tensor) -> Tensor:
        return torch.repeat_interleave(x, times, 0, output_size=6)

    def drawn(self, p: Tensor) -> Tensor:
        return torch.multinomial(p, 2)

    def factored(self, a: Tensor) -> Tensor:
        return torch.linalg.inv(torch.linalg.cholesky(a))

    def windows(self, x: Tensor) -> Tensor:
        return x + self.bias[self.index - 1].sum((0, 1))

    def bounded(self, x: Tensor, i: Tensor) -> Tensor:
        return torch.ops.hotstart_check.above(i, 17) + x


class Unwritten(nn.Module):
    """Methods that depend on memory that nothing was written to, or make it part of a result."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)

    def served(self, x: Tensor) -> Tensor:
        q = self.proj(x)
        out = torch.empty_like(q)
        torch.ops.hotstart_check.partly(q, out, "layer")
        return self.proj(out) + x

    def allocated(self, x: Tensor) -> tuple[Tensor, ...]:
        made = torch.empty(40, 8)
        made[:3] = x
        strided = torch.empty_strided((8, 30), (30, 1))
        strided[:, :3] = x.t()
        return made, x.new_empty(20, 8), strided, made.sum(0), torch.empty(50, dtype=torch.int64)

    def handed_on(self, x: Tensor) -> Tensor:
        buffer = torch.empty(200, 8)
        buffer[:3] = x
        return torch.ops.hotstart_check.above(buffer.abs() + 1, 0)

    def returned(self, x: Tensor) -> Tensor:
        return torch.ops.hotstart_check.allocate(x, 300) + 1


class Flow(nn.Module):
    """Requires something of its weights: an index that is computed from them, and an inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.diag(torch.tensor([1.0, 2.0, 3.0])))
        self.scale = nn.Parameter(torch.tensor([300.0, 2.0]))
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(1000.0)[(self.scale * 3).long() - 6]
        return x[:, self.order] @ torch.linalg.cholesky(self.mix) + rows.sum()


def guarded(x: Tensor, i: Tensor) -> Tensor:
    """Takes no values but those that a user knows."""
    return torch.ops.hotstart_check.above(i, 170) + x


def deadly(x: Tensor) -> Tensor:
    return torch.ops.hotstart_check.mortal(x) + 1


def limited(x: Tensor) -> Tensor:
    return torch.ops.hotstart_check.limit(x) + 1
