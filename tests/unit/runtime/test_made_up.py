"""Made-up values: the same every time, and of the kind that was asked for."""

from __future__ import annotations

import pytest
import torch

from hotstart.runtime.made_up import KINDS, Kind, made_up

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.complex64, torch.complex128, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
]  # fmt: skip
LAYOUTS = {
    "contiguous": ((2, 3, 3), (9, 3, 1)),
    "transposed": ((3, 4), (1, 3)),
    "expanded": ((4, 3, 3), (0, 0, 1)),
    "with gaps": ((2, 2), (10, 3)),
    "empty": ((0, 3), (3, 1)),
    "a number": ((), ()),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_has_the_layout_and_the_same_values_every_time(dtype: torch.dtype, layout: str) -> None:
    shape, stride = LAYOUTS[layout]
    for kind in KINDS:
        made = made_up(shape, stride, dtype, kind, below=3)
        assert (made.dtype, tuple(made.shape), made.stride()) == (dtype, shape, stride)
        again = made_up(shape, stride, dtype, kind, below=3)
        assert made.tolist() == again.tolist()


def test_integers_are_all_in_range() -> None:
    for dtype in DTYPES[7:]:
        flat = [made_up((7,), (1,), dtype, Kind(k), below=3).int().tolist() for k in
                ("zeros", "ones", "counting")]  # fmt: skip
        assert flat[:2] == [[0] * 7, [1] * 7]
        assert flat[2] == ([0, 1, 0, 1, 0, 1, 0] if dtype is torch.bool else [0, 1, 2, 0, 1, 2, 0])
    assert made_up((300,), (1,), torch.int8, Kind("counting"), below=1000).min() == 0


def test_floats_are_what_the_kind_says() -> None:
    normal, positive, definite = (
        made_up((2, 64, 64), (4096, 64, 1), torch.float32, Kind(floats=floats))
        for floats in ("normal", "positive", "identity")
    )
    assert normal.min() < 0 < normal.max()
    assert positive.min() > 0
    assert positive.max() < 1
    assert torch.linalg.eigvalsh(definite).min() > 0.5
    torch.linalg.cholesky(definite)


def test_another_seed_gives_other_values() -> None:
    first, second = (made_up((8,), (1,), torch.float32, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)
