"""Choose the linears whose weights are packed.

The choice follows from sizes and from the processor alone, so that a build gives the same bytes
every time. `docs/performance.md` has the measurements behind the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hotstart.options import PackWeights

if TYPE_CHECKING:
    from hotstart._torch import Pack

LEAST_ELEMENTS = 1 << 17
"""Elements of a weight from which on packing pays without AVX-512. A call of oneDNN's linear takes
10 to 30 us longer to begin than one of `addmm`."""

MOST_ROWS = 64
"""Rows up to which packing pays without AVX-512; with more, MKL is about as fast as oneDNN."""


def rule(pack_weights: PackWeights) -> Pack | None:
    """Make the function that chooses linears; None if nothing is prepared."""
    if not pack_weights:
        return None
    if pack_weights == "always" or _has_avx512():
        return lambda rows, elements: True
    return lambda rows, elements: rows <= MOST_ROWS and elements >= LEAST_ELEMENTS


def token(pack_weights: PackWeights) -> tuple[str, bool]:
    """Identify the rule, which depends on the processor."""
    return (str(pack_weights), _has_avx512())


def _has_avx512() -> bool:
    return "AVX512" in torch.backends.cpu.get_cpu_capability()
