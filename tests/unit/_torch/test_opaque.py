"""A weight that is packed for oneDNN is its bytes and its layout."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from hotstart._torch.running.opaque import is_opaque, layout_of, memory_of, opaque_over
from hotstart.model import contents
from hotstart.saving.prepared_file import _bytes_at


def packed_linear(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weight = torch.randn(48, 32, dtype=dtype)
    return weight, torch.ops.mkldnn._reorder_linear_weight(weight, 16)


def again(tensor: Tensor) -> Tensor:
    copy = torch.frombuffer(bytearray(_bytes_at(*memory_of(tensor))), dtype=torch.uint8)
    return opaque_over(copy, tensor.shape, tensor.dtype, layout_of(tensor))


def test_a_linear_is_made_again() -> None:
    weight, packed = packed_linear(torch.float32)
    made = again(packed)
    assert is_opaque(made)
    assert not is_opaque(weight)
    assert layout_of(made) == layout_of(packed)
    assert memory_of(made)[0] != memory_of(packed)[0]
    x = torch.randn(5, 32)
    given = (None, "none", [-1], "")
    linear = torch.ops.mkldnn._linear_pointwise
    assert torch.equal(linear(x, made, *given), linear(x, packed, *given))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolution_is_made_again(groups: int) -> None:
    weight = torch.randn(8, 8 // groups, 3, 3)
    settings = ([1, 1], [1, 1], [1, 1], groups)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *settings, [2, 8, 9, 9])
    made = again(packed)
    x = torch.randn(2, 8, 9, 9).contiguous(memory_format=torch.channels_last)
    given = (None, *settings, "none", [], "")
    convolution = torch.ops.mkldnn._convolution_pointwise
    assert torch.equal(convolution(x, made, *given), convolution(x, packed, *given))


@pytest.mark.thorough
def test_memory_lives_as_long_as_the_tensor() -> None:
    made = again(packed_linear(torch.float32)[1])
    memory = weakref.ref(made.memory)  # type: ignore[attr-defined]
    gc.collect()
    assert memory() is not None
    expected = contents(memory())  # type: ignore[arg-type]
    assert bytes(_bytes_at(*memory_of(made))) == expected
    del made
    gc.collect()
    assert memory() is None


def test_memory_of_another_size_is_refused() -> None:
    _, packed = packed_linear(torch.float32)
    for size in (0, memory_of(packed)[1] - 4, memory_of(packed)[1] + 4):
        memory = torch.zeros(size, dtype=torch.uint8)
        with pytest.raises(RuntimeError):
            opaque_over(memory, packed.shape, packed.dtype, layout_of(packed))
    with pytest.raises(RuntimeError):
        opaque_over(torch.zeros(8, dtype=torch.uint8), (2,), torch.float32, b"")
