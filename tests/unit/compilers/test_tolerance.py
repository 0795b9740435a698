"""How far apart two tensors are, with numbers that are infinite or none at all."""

from __future__ import annotations

import math

import pytest
import torch

from hotstart.compilers.proof.tolerance import close, error_of_inputs, errors, parts

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.complex64)
ALL = torch.ones(4, dtype=torch.bool)


def numbers(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_is_the_largest_difference(dtype: torch.dtype) -> None:
    one = numbers(1, 2, -8, 4, dtype=dtype)
    other = numbers(1, 2.5, -8, 3, dtype=dtype)
    error, _ = errors(one, other, None, ALL)
    assert error == 1
    assert not close(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_number_that_is_finite_on_one_side_differs_by_infinity(
    dtype: torch.dtype, number: float
) -> None:
    one, other = numbers(1, 2, 3, 4, dtype=dtype), numbers(1, number, 3, 4, dtype=dtype)
    for left, right in ((one, other), (other, one)):
        assert errors(left, right, None, ALL)[0] == math.inf
        assert not close(left, right)


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_what_is_finite_on_neither_side_does_not_count(number: float) -> None:
    one, other = numbers(1, number, 3, 4), numbers(1, number, 3, 4.5)
    assert errors(one, other, None, ALL)[0] == 0.5
    assert close(one, one.clone())


def test_elements_that_are_not_decided_do_not_count() -> None:
    one, other = numbers(1, 2, 3, 4), numbers(1, 2, 3, 40)
    assert errors(one, other, None, torch.tensor([True, True, True, False]))[0] == 0


def test_a_tensor_without_elements_has_no_error() -> None:
    one = torch.zeros(0, 3)
    assert close(one, one.clone())
    assert errors(one, one.clone(), None, torch.ones(0, 3, dtype=torch.bool)) == (0, 0)


@pytest.mark.parametrize(("error", "expected"), [(0.9e-5, True), (1.1e-5, False)])
def test_close_is_a_share_of_the_largest_number(error: float, expected: bool) -> None:
    one = numbers(1, 2, 3, -100, dtype=torch.float32)
    other = one + numbers(100 * error, 0, 0, 0)
    assert close(one, other) == expected


@pytest.mark.parametrize(
    ("dtype", "moved", "expected"),
    [(torch.float32, 1e-5, 4e-5), (torch.float32, 1.0, 1e-3), (torch.bfloat16, 1e-5, 0.0)],
)
def test_inputs_explain_four_times_what_their_last_digit_moves_and_no_more_than_a_share(
    dtype: torch.dtype, moved: float, expected: float
) -> None:
    exact = numbers(1, 0.5, 0, -1, dtype=torch.float64)
    nudged = exact + numbers(0, 0, moved, 0, dtype=torch.float64)
    error = error_of_inputs(exact.to(dtype), exact, [exact, nudged], ALL)
    assert error == pytest.approx(expected)
    undecided = torch.tensor([True, True, False, True])
    assert error_of_inputs(exact.to(dtype), exact, [nudged], undecided) == 0


def test_runs_that_are_refused_or_give_other_sizes_explain_nothing() -> None:
    exact = numbers(1, 2, 3, 4, dtype=torch.float64)
    assert error_of_inputs(exact.float(), exact, [None, exact[:2]], ALL) == 0
    assert error_of_inputs(exact.float(), exact, [], ALL) == 0
    assert error_of_inputs(exact.float(), None, [exact], ALL) == 0


@pytest.mark.parametrize("mask", [-1e4, torch.finfo(torch.float32).min])
def test_numbers_of_a_mask_do_not_hide_a_difference(mask: float) -> None:
    one = torch.cat([torch.ones(8), torch.full((3,), mask)])
    other = one.clone()
    other[:8] += 1e-3
    assert not close(one, other)
    assert close(one, torch.cat([one[:8], one[8:] * (1 - 1e-6)]))
    assert [int(part.sum()) for part in parts(one)] == [8, 3]
