"""What is measured of the machine."""

from __future__ import annotations

import pytest
import torch

from hotstart._torch.running.packed_product import packed_product
from hotstart.profiling import peaks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_packed_product_is_the_product(dtype: torch.dtype) -> None:
    left, right = torch.randn(64, 64, dtype=dtype), torch.randn(64, 64, dtype=dtype)
    packed = packed_product(left, right)
    if packed is None:
        pytest.skip(f"this processor has no {dtype} of oneDNN's")
    torch.testing.assert_close(packed(), left @ right, rtol=0.02, atol=0.1)


def test_there_is_no_packed_product_of_other_dtypes() -> None:
    assert packed_product(torch.ones(2, 2).double(), torch.ones(2, 2).double()) is None


def test_the_fastest_product_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([3.0, 2.0, 1.0, 0.5])
    monkeypatch.setattr(peaks, "_fastest", lambda work: next(seconds))
    monkeypatch.setattr(peaks, "packed_product", lambda left, right: lambda: None)
    found = peaks.measure_peaks(torch.float32)
    assert found.operations_per_s == 2 * 1024**3
    assert found.bytes_per_s == 4 * (64 << 20)
