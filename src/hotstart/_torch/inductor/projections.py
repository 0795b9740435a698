"""Project queries, keys and values of `nn.MultiheadAttention` without a guard on sizes of 1."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional
from torch.nn.functional import linear

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def projections_of_any_size() -> Iterator[None]:
    """Copy projections whatever their strides are.

    `functional._in_projection_packed` (2.11 to 2.15) asks for them contiguous: whether they are
    already depends on which sizes are 1. Nothing else has the memory that it copies.
    """
    with in_between(functional, "_in_projection_packed", _projected):
        yield


def _projected(
    known: Callable[..., Sequence[torch.Tensor]],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    w: torch.Tensor,
    b: torch.Tensor | None = None,
) -> Sequence[torch.Tensor]:
    if k is not v:
        return known(q, k, v, w, b)
    if q is k:
        return _apart(linear(q, w, b), 3)
    sizes = [q.size(-1), 2 * q.size(-1)]
    own, others = w.split(sizes)
    own_bias, others_bias = (None, None) if b is None else b.split(sizes)
    return linear(q, own, own_bias), *_apart(linear(k, others, others_bias), 2)


def _apart(projected: torch.Tensor, count: int) -> Sequence[torch.Tensor]:
    several = projected.unflatten(-1, (count, -1)).movedim(-2, 0)
    apart: Sequence[torch.Tensor] = several.clone(memory_format=torch.contiguous_format).unbind(0)
    return apart
