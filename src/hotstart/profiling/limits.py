"""Compare what a part of a call did with what the machine can do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hotstart.profiling.parts import KernelProfile
from hotstart.profiling.peaks import Peaks

Limit = Literal["arithmetic", "memory", "cache"]
Standing = Literal["at", "below", "cache", "unknown"]

NEAR = 0.7
"""Share of a peak from which a part is at that limit."""

FEW = 0.1
"""Share of the time that kernels may take whose operations are not known, for all to be known."""


@dataclass(frozen=True)
class Rates:
    """The work of a part of a call, and how fast it did that.

    Attributes:
        seconds: how long it took.
        share: of the whole call, between 0 and 1.
        bytes: read and written.
        operations: multiplications and additions of what they are counted for; None: of nothing.
        uncounted: kernels whose operations are not known.
        uncounted_s: seconds that these took.
        operations_per_s: None where `operations` is.
        bytes_per_s: the same of bytes.
        arithmetic: operations per second over the peak; 0 where they are not known.
        memory: bytes per second over the peak; above 1 where they come from a cache.
    """

    seconds: float
    share: float
    bytes: int
    operations: int | None
    uncounted: int
    uncounted_s: float
    operations_per_s: float | None
    bytes_per_s: float
    arithmetic: float
    memory: float

    @property
    def nearer(self) -> Limit:
        """The limit that it is nearer to; `"cache"`: neither, it is faster than memory."""
        if self.arithmetic >= self.memory or (self.operations is not None and self.memory > 1):
            return "arithmetic"
        return "memory" if self.memory <= 1 else "cache"

    @property
    def limit_text(self) -> str:
        """The nearer limit, and the share of it that it reaches, rounded down: `memory 45 %`."""
        if self.nearer == "cache":
            return "in cache"
        reached = self.arithmetic if self.nearer == "arithmetic" else self.memory
        return f"{self.nearer} {math.floor(100 * reached + 1e-9)} %"

    @property
    def of_limit(self) -> float:
        """The share of that limit that it reaches, between 0 and 1."""
        return min(self.arithmetic if self.nearer == "arithmetic" else self.memory, 1.0)

    @property
    def standing(self) -> Standing:
        """The standing: at a limit, below both, or unknown since operations are not counted.

        That counts where kernels take some of the time whose operations are not known: what is not
        counted may be at the limit of arithmetic, unless memory holds it back.
        """
        if max(self.arithmetic, self.memory if self.memory <= 1 else 0.0) >= NEAR:
            return "at"
        if self.nearer == "cache":
            return "cache"
        known = self.operations is not None and self.uncounted_s <= FEW * self.seconds
        return "below" if known else "unknown"


def rates_of(
    seconds: float, whole_s: float, kernels: Iterable[KernelProfile], peaks: Peaks
) -> Rates:
    """Add up the work of kernels.

    Args:
        seconds: how long they took, with what is around them.
        whole_s: how long the call took that they are of, in seconds.
        kernels: they.
        peaks: what the machine can do.
    """
    kernels = list(kernels)
    known = [kernel.operations for kernel in kernels if kernel.operations is not None]
    uncounted = [kernel.seconds for kernel in kernels if kernel.operations is None]
    operations = sum(known) if known else None
    moved = sum(kernel.bytes for kernel in kernels)
    per_s = 1 / seconds if seconds else 0.0
    rate = None if operations is None else operations * per_s
    return Rates(
        seconds=seconds,
        share=seconds / whole_s if whole_s else 0.0,
        bytes=moved,
        operations=operations,
        uncounted=len(uncounted),
        uncounted_s=sum(uncounted),
        operations_per_s=rate,
        bytes_per_s=moved * per_s,
        arithmetic=(rate or 0.0) / peaks.operations_per_s,
        memory=moved * per_s / peaks.bytes_per_s,
    )
