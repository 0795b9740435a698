"""Measure what this machine can do at most: arithmetic, and memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import torch

from hotstart._torch.running.packed_product import packed_product

_SIZE = 1024
"""Rows and columns of the matrices that are multiplied."""

_BYTES = 64 << 20
"""What is copied; more than caches hold."""

_SECONDS = 0.15
"""So long each is done again and again; the fastest counts."""


class Peaks(msgspec.Struct, frozen=True):
    """Peak rates that were measured on this machine, with the threads that torch has.

    Attributes:
        operations_per_s: multiplications and additions of a large product of matrices.
        bytes_per_s: read and written by a large copy.
        dtype: of the matrices.
    """

    operations_per_s: float
    bytes_per_s: float
    dtype: str


def measure_peaks(dtype: torch.dtype) -> Peaks:
    """Measure them, which takes some tenths of a second.

    Args:
        dtype: floating-point; of the matrices.
    """
    one = torch.ones((_SIZE, _SIZE), dtype=dtype)
    weight = one.view(_SIZE, _SIZE, 1, 1)
    image = one.view(1, 32, 32, _SIZE).permute(0, 3, 1, 2)
    source = torch.zeros(_BYTES, dtype=torch.uint8)
    copy = torch.zeros_like(source)
    products: list[Callable[[], object]] = [
        lambda: torch.mm(one, one),
        # The same product, by the library for convolutions, which may be faster at it.
        lambda: torch.nn.functional.conv2d(image, weight),
    ]
    packed = packed_product(one, one)
    if packed is not None:
        products.append(packed)
    product_s = min(map(_fastest, products))
    copy_s = _fastest(lambda: copy.copy_(source))
    name = str(dtype).removeprefix("torch.")
    return Peaks(2 * _SIZE**3 / product_s, 2 * _BYTES / copy_s, name)


def _fastest(work: Callable[[], object]) -> float:
    work()
    fastest, end = float("inf"), time.perf_counter() + _SECONDS
    while (started := time.perf_counter()) < end:
        work()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest
