"""Made-up values for tensors, the same in every process: for runs that compare code with code."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Literal

import msgspec
import torch

from hotstart.records.shapes import spanned

Integers = Literal["zeros", "ones", "counting"]
Floats = Literal["normal", "positive", "identity"]


class Kind(msgspec.Struct, frozen=True):
    """Kind of made-up values.

    Attributes:
        integers: all 0; all 1; or 0, 1, 2, ... up to what may index, and again from 0.
        floats: of both signs around 0; between 0 and 1; or positive definite where the last two
            dimensions are equal, else between 0 and 1.
    """

    integers: Integers = "zeros"
    floats: Floats = "normal"

    def __str__(self) -> str:
        return f"{self.integers} for integers, {self.floats} floats"


_INTEGERS: tuple[Integers, ...] = ("zeros", "ones", "counting")
_FLOATS: tuple[Floats, ...] = ("normal", "positive", "identity")

KINDS = tuple(Kind(*both) for both in itertools.product(_INTEGERS, _FLOATS))
"""All kinds, those first that most models take."""


def made_up(
    shape: Sequence[int],
    stride: Sequence[int],
    dtype: torch.dtype,
    kind: Kind = KINDS[0],
    *,
    below: int = 2,
    seed: int = 0,
) -> torch.Tensor:
    """A tensor with made-up values, in memory of its own.

    Args:
        shape: its sizes.
        stride: its strides; elements may share memory.
        dtype: any that a plain tensor has.
        kind: what its values are like.
        below: what integers that count stay below, such as the smallest size that they may index.
        seed: another one gives other random numbers.
    """
    span = spanned(shape, stride)
    if not (dtype.is_floating_point or dtype.is_complex):
        return _integers(span, dtype, kind.integers, below).as_strided(shape, stride)
    wide = torch.complex64 if dtype.is_complex else torch.float32
    generator = torch.Generator().manual_seed(
        random.Random(f"{seed} {span} {dtype}").getrandbits(32)
    )
    if kind.floats == "normal":
        flat = torch.randn((span,), dtype=wide, generator=generator) * 0.1
    else:
        flat = torch.rand((span,), generator=generator) * 0.98 + 0.01
    made = flat.to(dtype).as_strided(shape, stride)
    square = len(shape) >= 2 and shape[-1] == shape[-2]
    if kind.floats == "identity" and square and span >= made.numel():
        made.copy_(_definite(made))
    return made


def _integers(count: int, dtype: torch.dtype, kind: Integers, below: int) -> torch.Tensor:
    match kind:
        case "zeros":
            return torch.zeros(count, dtype=dtype)
        case "ones":
            return torch.ones(count, dtype=dtype)
        case "counting":
            highest = 1 if dtype is torch.bool else torch.iinfo(dtype).max
            return (torch.arange(count) % max(1, min(below, highest + 1))).to(dtype)


def _definite(noise: torch.Tensor) -> torch.Tensor:
    """Symmetric positive definite matrices, from numbers between 0 and 1."""
    size = noise.shape[-1]
    small = noise.real.float() if noise.is_complex() else noise.float()
    return torch.eye(size) + (small + small.mT) * (0.25 / max(size, 1))
