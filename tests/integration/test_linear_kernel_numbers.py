"""What the kernel of linears computes, called by itself, beside the same in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from hotstart._torch.inductor.joined_kernels import compile_kernels
from hotstart._torch.kernels.linear import (
    ACROSS,
    ACTIVATIONS,
    ADDS,
    HAS_BIAS,
    MULTIPLIES,
    linear_kernel,
)

Kernel = Callable[..., None]

FUNCTIONS: dict[int, Callable[[Tensor], Tensor]] = {
    ACTIVATIONS["none", ""]: lambda x: x,
    ACTIVATIONS["relu", ""]: torch.relu,
    ACTIVATIONS["gelu", "none"]: torch.nn.functional.gelu,
    ACTIVATIONS["gelu", "tanh"]: lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    ACTIVATIONS["swish", ""]: torch.nn.functional.silu,
    ACTIVATIONS["sigmoid", ""]: torch.sigmoid,
    ACTIVATIONS["tanh", ""]: torch.tanh,
}


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    (path,) = compile_kernels({"linear_kernel": linear_kernel({})}, {}).values()
    function = ctypes.CDLL(path).kernel
    function.restype = None

    def call(*args: Any) -> None:
        function(
            *(
                ctypes.c_void_p(each.data_ptr())
                if isinstance(each, Tensor)
                else ctypes.c_int64(each)
                for each in args
            )
        )

    return call


@pytest.mark.thorough
@settings(deadline=None, max_examples=300)
@given(
    rows=st.one_of(st.integers(0, 12), st.integers(40, 130)),
    columns=st.one_of(st.integers(1, 130), st.integers(380, 400)),
    inputs=st.one_of(st.integers(0, 40), st.integers(200, 1100)),
    across=st.booleans(),
    activation=st.sampled_from(sorted(FUNCTIONS)),
    flags=st.sets(st.sampled_from([HAS_BIAS, ADDS, MULTIPLIES])),
    wider=st.integers(0, 3),
    first=st.integers(0, 9),
    after=st.integers(0, 9),
)
def test_every_size_and_epilogue(
    kernel: Kernel,
    rows: int,
    columns: int,
    inputs: int,
    across: bool,
    activation: int,
    flags: set[int],
    wider: int,
    first: int,
    after: int,
) -> None:
    torch.manual_seed(rows + columns)
    out = first + columns + after
    x = torch.randn(rows, inputs + wider)
    weight = torch.randn(inputs, columns) if across else torch.randn(columns, inputs)
    bias, other = torch.randn(out), torch.randn(rows, out)
    made = torch.full((rows, out), 7.0)
    what = activation + sum(flags) + (ACROSS if across else 0)
    kernel(x, weight, bias, other, made, rows, columns, inputs, inputs + wider, out, first, what)

    part = slice(first, first + columns)
    expected = x[:, :inputs].double() @ (weight if across else weight.t()).double()
    if HAS_BIAS in flags:
        expected = expected + bias[part]
    expected = FUNCTIONS[activation](expected)
    if ADDS in flags:
        expected = expected + other[:, part]
    if MULTIPLIES in flags:
        expected = expected * other[:, part]
    torch.testing.assert_close(made[:, part].double(), expected, rtol=1e-4, atol=2e-4)
    assert (made[:, :first] == 7.0).all()
    assert (made[:, first + columns :] == 7.0).all()


@pytest.mark.parametrize(
    ("across", "counts"),
    [
        (False, (1, 2, 3, 47, 48)),
        (False, (49, 52, 64, 96, 97, 200)),
        (True, (1, 2, 3, 5, 8, 9, 48, 49, 97, 200)),
    ],
)
def test_a_row_is_the_same_whatever_rows_are_beside_it(
    kernel: Kernel, across: bool, counts: tuple[int, ...]
) -> None:
    columns, inputs = 405, 602
    x = torch.randn(max(counts), inputs)
    weight = torch.randn(inputs, columns) if across else torch.randn(columns, inputs)
    found = []
    for rows in counts:
        made = torch.empty(rows, columns)
        what = ACROSS if across else 0
        kernel(x, weight, x, x, made, rows, columns, inputs, inputs, columns, 0, what)
        found.append(made)
    assert all(torch.equal(each, found[-1][: len(each)]) for each in found)


def test_what_is_no_number_stays_in_its_row(kernel: Kernel) -> None:
    for rows in (5, 60):
        x, weight = torch.randn(rows, 300), torch.randn(50, 300)
        x[3, 7], x[4, 299] = float("nan"), float("inf")
        made = torch.empty(rows, 50)
        kernel(x, weight, x, x, made, rows, 50, 300, 300, 50, 0, 0)
        others = [row for row in range(rows) if row not in (3, 4)]
        assert made[3].isnan().all()
        assert made[4].isinf().all()
        assert made[others].isfinite().all()
