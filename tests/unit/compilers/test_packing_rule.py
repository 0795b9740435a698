"""Which linears are packed, by size, dtype and processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from hotstart.compilers.inductor.packing_rule import Processor, rule

AVX2 = Processor(vectors=256, intel=True)
OLD = Processor(vectors=128, intel=False)
INTEL = Processor(vectors=512, intel=True)
AMD = Processor(vectors=512, intel=False)


def packs(processor: Processor, rows: Any, elements: int, dtype: torch.dtype) -> bool:
    choose = rule(True, processor)
    assert choose is not None
    weight = torch.empty(-(-elements // 512), 512, dtype=dtype, device="meta")
    return choose(rows, weight.t())


@pytest.mark.parametrize(
    ("processor", "rows", "elements", "packed"),
    [
        (AVX2, 1, 512, True),  # hotstart's kernel takes the place of oneDNN
        (AVX2, 512, 1 << 20, True),
        (OLD, 1, 1 << 17, True),
        (OLD, 64, 1 << 17, True),
        (OLD, 65, 1 << 17, False),
        (OLD, 64, (1 << 17) - 512, False),
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
        (AVX2, torch.bfloat16, 1, 1 << 17, True),
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


@pytest.mark.parametrize(("tuned", "packed"), [(16, True), (64, True), (65, False)])
def test_the_size_that_a_range_is_tuned_for_decides(tuned: int, packed: bool) -> None:
    env = ShapeEnv()
    symbol = env.create_symbol(tuned, ConstantSource("rows"), DimDynamic.DYNAMIC)
    env.constrain_symbol_range(symbol, 2, 512)
    rows = env.create_symintnode(symbol, hint=tuned)
    assert packs(OLD, rows, 1 << 20, torch.float32) is packed


@pytest.mark.parametrize("processor", [OLD, AVX2, INTEL, AMD])
def test_always_packs_whatever_the_size(processor: Processor) -> None:
    choose = rule("always", processor)
    assert choose is not None
    assert choose(1000, torch.empty(1))


def test_nothing_is_prepared_without_packing() -> None:
    assert rule(False, AMD) is None
