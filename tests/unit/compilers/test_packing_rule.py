"""Which linears are packed, by size, dtype and processor."""

from __future__ import annotations

import pytest
import torch

from hotstart.compilers.inductor.packing_rule import Processor, rule

AVX2 = Processor(avx512=False, intel=True)
INTEL = Processor(avx512=True, intel=True)
AMD = Processor(avx512=True, intel=False)


def packs(processor: Processor, rows: int, elements: int, dtype: torch.dtype) -> bool:
    choose = rule(True, processor)
    assert choose is not None
    return choose(rows, torch.empty(elements, dtype=dtype, device="meta"))


@pytest.mark.parametrize(
    ("processor", "rows", "elements", "packed"),
    [
        (AVX2, 1, 1 << 17, True),
        (AVX2, 64, 1 << 17, True),
        (AVX2, 65, 1 << 20, False),
        (AVX2, 64, (1 << 17) - 1, False),
        (AMD, 1, 1 << 19, True),
        (AMD, 1, 1 << 18, False),
        (AMD, 512, 1 << 20, True),
        (AMD, 512, 64, False),
        (INTEL, 15, 1 << 22, False),
        (INTEL, 16, 1 << 22, True),
        (INTEL, 16, 1 << 14, False),
    ],
)
def test_packing_of_float32(processor: Processor, rows: int, elements: int, packed: bool) -> None:
    assert packs(processor, rows, elements, torch.float32) is packed


@pytest.mark.parametrize(
    ("processor", "dtype", "rows", "elements", "packed"),
    [
        (AMD, torch.bfloat16, 1, 1 << 16, True),
        (AMD, torch.bfloat16, 1, 1 << 15, False),
        (INTEL, torch.bfloat16, 1, 1 << 16, True),
        (INTEL, torch.float16, 1, 1 << 20, False),
        (INTEL, torch.float16, 4, 1 << 20, True),
    ],
)
def test_packing_of_two_bytes_an_element(
    processor: Processor, dtype: torch.dtype, rows: int, elements: int, packed: bool
) -> None:
    assert packs(processor, rows, elements, dtype) is packed


@pytest.mark.parametrize("processor", [AVX2, INTEL, AMD])
def test_always_packs_whatever_the_size(processor: Processor) -> None:
    choose = rule("always", processor)
    assert choose is not None
    assert choose(1000, torch.empty(1))


def test_nothing_is_prepared_without_packing() -> None:
    assert rule(False, AMD) is None
