from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from hotstart.profiling.operations import bytes_of, operations_of, sizes_of


def operations(name: str, function: Any, *args: Any, **kwargs: Any) -> int | None:
    return operations_of(name, args, kwargs, function(*args, **kwargs))


X, W, B = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
Q = torch.randn(2, 6, 7, 8)
IMAGE = torch.randn(1, 4, 9, 9)


@pytest.mark.parametrize(
    ("name", "function", "args", "expected"),
    [
        ("torch.mm", torch.mm, (X, W.t()), 2 * 3 * 4 * 5),
        ("torch.addmm", torch.addmm, (B, X, W.t()), 2 * 3 * 4 * 5),
        ("linear", functional.linear, (X, W, B), 2 * 3 * 4 * 5),
        (
            "torch.ops.mkldnn._linear_pointwise.default",
            torch.ops.mkldnn._linear_pointwise.default,
            (X, W, B, "none", [-1], ""),
            2 * 3 * 4 * 5,
        ),
        (
            "scaled_dot_product_attention",
            functional.scaled_dot_product_attention,
            (Q, Q, Q),
            2 * 2 * 6 * 7 * 7 * (8 + 8),
        ),
        (
            "torch.convolution",
            torch.convolution,
            (IMAGE, torch.randn(6, 2, 3, 3), None, (1, 1), (0, 0), (1, 1), False, (0, 0), 2),
            2 * 6 * 7 * 7 * 2 * 3 * 3,
        ),
        (
            "torch.convolution",
            torch.convolution,
            (IMAGE, torch.randn(4, 3, 3, 3), None, (1, 1), (0, 0), (1, 1), True, (0, 0), 1),
            2 * 4 * 9 * 9 * 3 * 3 * 3,
        ),
        ("torch.relu", torch.relu, (X,), None),
    ],
)
def test_multiplications_and_additions_are_counted(
    name: str, function: Any, args: tuple[Any, ...], expected: int | None
) -> None:
    assert operations(name, function, *args) == expected


def test_those_of_a_packed_convolution_are_too() -> None:
    weight = torch.randn(6, 2, 3, 3)
    window = {"padding": [0, 0], "stride": [1, 1], "dilation": [1, 1], "groups": 2}
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *window.values())
    args = (IMAGE, packed, None, *window.values(), "none", [], "")
    name = "torch.ops.mkldnn._convolution_pointwise.default"
    found = operations(name, torch.ops.mkldnn._convolution_pointwise.default, *args)
    assert found == 2 * 6 * 7 * 7 * 2 * 3 * 3


def test_an_output_that_is_given_is_counted_once() -> None:
    out = torch.empty(3, 5)
    assert operations("torch.mm", torch.mm, X, W.t(), out=out) == 2 * 3 * 4 * 5
    assert bytes_of(X, W, out, out) == 4 * (12 + 20 + 15)


def test_what_is_expanded_is_as_large_as_its_memory() -> None:
    assert bytes_of(torch.zeros(1).expand(1000)) == 4
    assert bytes_of([torch.zeros(0, 3), (torch.zeros(2, dtype=torch.int64), 7)]) == 16


def test_kernels_of_hotstarts_tell_by_their_arguments_what_they_do() -> None:
    made = torch.empty(3, 12)
    args = (X, W, B, made, made, 3, 5, 4, 4, 12, 7, 8)  # five columns of twelve
    assert operations_of("linear_kernel", args, {}, None) == 2 * 3 * 4 * 5
    assert sizes_of("linear_kernel", args, None) == "3 x 5"
    made = torch.empty_like(Q)
    assert sizes_of("attention", (Q, Q, Q, Q, made, 2, 6), None) == "2 x 6 x 7 x 8"


def test_operators_make_what_they_return() -> None:
    assert sizes_of("torch.mm", (X, W), [torch.empty(3, 5), X]) == "3 x 5"
    assert not sizes_of("cpp_fused_add_0", (X, W), None)
