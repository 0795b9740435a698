"""Profiles to show, of numbers that were chosen."""

from __future__ import annotations

from typing import Any

from hotstart.profiling.parts import KernelProfile, PieceProfile
from hotstart.profiling.peaks import Peaks
from hotstart.profiling.record import Profile

PEAKS = Peaks(operations_per_s=100e9, bytes_per_s=10e9, dtype="float32")


def kernel(name: str, seconds: float, **more: Any) -> KernelProfile:
    given = {"kind": "operator", "count": 1, "bytes": 1000, "operations": None, **more}
    return KernelProfile(name=name, seconds=seconds, **given)


LINEAR = kernel("linear", 4e-3, operations=360_000_000)
"""At 90 % of arithmetic."""
SMALL = kernel("mm", 1e-3, operations=10_000_000)
"""At 10 % of arithmetic."""
COPY = kernel("copy_", 1e-3, bytes=9_000_000)
"""At 90 % of memory."""
FUSED = kernel("cpp_fused_add_0", 2e-3, kind="kernel", bytes=2_000_000)
"""At 10 % of memory; its operations are not known."""
CACHED = kernel("cpp_fused_mul_1", 1e-3, kind="kernel", bytes=30_000_000)
"""Thrice as fast as memory."""


def piece(name: str, unit: str, *kernels: KernelProfile, **more: Any) -> PieceProfile:
    given = {"layers": (f"layers.{name.removeprefix('piece_')}",), "op_by_op": "", **more}
    seconds = sum(each.seconds for each in kernels)
    return PieceProfile(name=name, unit=unit, seconds=seconds, kernels=kernels, **given)


def profile(*pieces: PieceProfile, **more: Any) -> Profile:
    seconds = sum(each.seconds for each in pieces)
    given = {
        "call": "", "variant": "batch=1..8", "native": True, "seconds": seconds,
        "seconds_in_parts": 1.1 * seconds, "peaks": PEAKS, "threads": 2, "repeats": 30, "load": 1.0,
        **more,
    }  # fmt: skip
    return Profile(pieces=pieces, **given)


def of_all_kinds() -> Profile:
    """Two equal pieces, one that is different, one that runs op by op, and what is between."""
    return profile(
        piece("piece_0", "first", LINEAR, FUSED),
        piece("piece_1", "first", LINEAR, FUSED),
        piece("piece_2", "second", COPY, CACHED, layers=("<head>",)),
        piece("piece_3", "third", SMALL, op_by_op="its strides are not known"),
        piece("", "", kernel("torch.ops.aten.cumsum.default", 1e-3), layers=()),
    )


def of_many_pieces(count: int) -> Profile:
    """So many pieces, every tenth of which is different."""
    pieces = [
        piece(f"piece_{n}", f"unit {n if n % 10 == 0 else n % 7}", LINEAR, FUSED, SMALL)
        for n in range(count)
    ]
    return profile(*pieces)
