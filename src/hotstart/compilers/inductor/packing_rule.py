"""Choose the linears whose weights are packed.

The choice follows from sizes, dtype and processor alone, so that a build gives the same bytes every
time. `docs/performance.md` has the measurements behind the numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from hotstart._torch.dynamo.graph_inputs import tuned_size
from hotstart.options import PackWeights
from hotstart.targets import VECTOR_BITS, TargetName

if TYPE_CHECKING:
    from hotstart._torch.packing.separate import Pack

LEAST_ELEMENTS = 1 << 17
"""Elements of a weight from which packing pays without AVX-512. A call of oneDNN's linear takes 10
to 30 us longer to begin than one of `addmm`."""

MOST_ROWS = 64
"""Rows up to which packing pays without AVX-512; with more, MKL is about as fast as oneDNN."""

LEAST_WORK = {torch.float32: 1 << 19, torch.bfloat16: 1 << 16, torch.float16: 1 << 16}
"""Rows times elements of a weight from which on packing pays with AVX-512: less work is done before
oneDNN's linear has begun. With two bytes an element `addmm` is oneDNN's as well."""

LEAST_ROWS_OF_INTEL = {torch.float32: 16, torch.bfloat16: 1, torch.float16: 4}
"""Rows from which on packing pays on Intel's processors with AVX-512, where MKL uses it, too."""


_VECTORS = {"AVX2": 256, "AVX512": 512}
"""Bits of vectors by what torch calls the processor; others have 128 or fewer."""


class Processor(NamedTuple):
    """Features of a processor that decide which library multiplies faster.

    Attributes:
        vectors: bits of the vectors that torch's kernels compute in; 512: AVX-512, 256: AVX2.
        intel: MKL uses all that the processor has.
    """

    vectors: int
    intel: bool


def rule(pack_weights: PackWeights, processor: Processor) -> Pack | None:
    """Make the function that chooses linears; None if nothing is prepared.

    Args:
        pack_weights: the option.
        processor: the one to choose for.
    """
    if not pack_weights:
        return None
    if pack_weights == "always":
        return lambda rows, weight: weight.numel() > 0  # oneDNN multiplies by no empty one
    pays = _pays_with_avx512 if processor.vectors == 512 else _pays
    return lambda rows, weight: pays(rows, weight, processor)


def _pays(rows: int | torch.SymInt, weight: torch.Tensor, processor: Processor) -> bool:
    if processor.vectors == 256 and weight.dtype is torch.float32:
        # hotstart's kernel takes the place of oneDNN with what has been fused into its linear
        return weight.numel() > 0
    return tuned_size(rows) <= MOST_ROWS and weight.numel() >= LEAST_ELEMENTS


def _pays_with_avx512(rows: int | torch.SymInt, weight: torch.Tensor, processor: Processor) -> bool:
    tuned = tuned_size(rows)
    if processor.intel and tuned < LEAST_ROWS_OF_INTEL.get(weight.dtype, 1):
        return False
    return tuned * weight.numel() >= LEAST_WORK.get(weight.dtype, 0)


def token(pack_weights: PackWeights, processor: Processor) -> tuple[str, int, bool]:
    """Identify the rule, which depends on the processor."""
    return (str(pack_weights), *processor)


def processor_of(target: TargetName) -> Processor:
    """Describe the processor that a target stands for.

    A level does not name the maker, so the rule for other makers is used: where the two rules
    differ, it costs Intel's processors a tenth, while Intel's rule would cost others several times
    that.
    """
    if target == "native":
        return this_processor()
    return Processor(VECTOR_BITS[target], intel=False)


def this_processor() -> Processor:
    """Look at the processor of this machine."""
    return Processor(_VECTORS.get(torch.backends.cpu.get_cpu_capability(), 128), _is_intel())


def _is_intel() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:  # another system than Linux
        return False
    return "GenuineIntel" in text
