"""Views whose strides are the same for all sizes assume nothing of sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import hotstart
from hotstart import Dim
from hotstart._torch.inductor.view_strides import view_stride

SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 6]), max_size=4)


@st.composite
def laid_out(draw: st.DrawFn) -> Tensor:
    """A tensor whose dimensions lie in any order, with gaps, or repeat."""
    shape = draw(SHAPES)
    order = draw(st.permutations(range(len(shape))))
    wider = [size + draw(st.integers(0, 1)) for size in shape]
    made = torch.empty([wider[axis] for axis in order]).permute(
        [order.index(axis) for axis in range(len(shape))]
    )
    for axis, size in enumerate(shape):
        made = made.narrow(axis, 0, size)
    return made.expand(draw(st.integers(1, 3)), *shape) if draw(st.booleans()) else made


@pytest.mark.thorough
@given(laid_out(), SHAPES)
def test_strides_are_those_of_a_view(tensor: Tensor, shape: list[int]) -> None:
    stride = view_stride(tensor.shape, tensor.stride(), shape)
    if stride is None:
        return
    view = tensor.view(shape)
    assert tensor.numel() == view.numel()
    expected = [step for step, size in zip(view.stride(), shape, strict=True) if size > 1]
    if view.numel():
        assert [s for s, size in zip(stride, shape, strict=True) if size > 1] == expected


@given(laid_out(), SHAPES)
def test_a_view_that_is_possible_is_found(tensor: Tensor, shape: list[int]) -> None:
    if tensor.numel() == 0:
        return
    try:
        tensor.view(shape)
    except RuntimeError:
        assert view_stride(tensor.shape, tensor.stride(), shape) is None
    else:
        assert view_stride(tensor.shape, tensor.stride(), shape) is not None


class Heads(nn.Module):
    """Attention of several heads, whose projections become one product."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, 64) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], -1, 16)
        q, k, v = (linear(x).view(shape).transpose(1, 2) for linear in (self.q, self.k, self.v))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)


@pytest.mark.thorough
@pytest.mark.parametrize("length", [1, Dim("length", min=2, max=64)])
def test_one_unit_serves_a_batch_of_one_and_of_many(length: Any) -> None:
    model = Heads().eval()
    dims: dict[int, Any] = {0: Dim("batch", min=1, max=16)}
    if length != 1:
        dims[1] = length
    program = hotstart.compile(
        model, (torch.randn(2, 1 if length == 1 else 8, 64),), dynamic_shapes={"x": dims}
    )
    assert len(program.report.units) == 1
    for batch in (1, 2, 16):
        for tokens in (1,) if length == 1 else (2, 3, 64):
            x = torch.randn(batch, tokens, 64)
            with torch.no_grad():
                expected = model(x)
            torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
            assert program(x).stride() == expected.stride()
