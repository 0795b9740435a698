"""Dimensions that follow from others."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotstart import Dim, OptionsError
from hotstart.records.dims import DerivedSize

A, B = Dim("a", max=8), Dim("b", min=2, max=9)


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (8 * A, "8*a"),
        (A * 8 + 4, "8*a + 4"),
        (1 + A, "a + 1"),
        (A - 1, "a - 1"),
        (2 * (A + B), "2*a + 2*b"),
        (2 * (A - 1) + B + 3, "2*a + b + 1"),
        (A + A, "2*a"),
        (A + 0, "a"),
    ],
)
def test_multiples_and_sums_are_written_as_they_are_computed(dim: Any, text: str) -> None:
    assert str(dim) == text


def test_what_is_no_more_than_another_is_that_one() -> None:
    assert (1 * A).simplest is A
    assert (1 * A).size == "a"
    assert (2 * A).simplest == 2 * A
    assert (2 * A).size == DerivedSize((("a", 2),))


@pytest.mark.parametrize("factor", [0, -2])
def test_factors_are_positive(factor: int) -> None:
    with pytest.raises(OptionsError, match=f"got factor {factor}, takes 1 or more"):
        factor * A


@pytest.mark.parametrize("other", [1.5, True, "b", None])
def test_only_whole_numbers_and_dimensions_are_computed_with(other: Any) -> None:
    for compute in (operator.add, operator.mul):
        with pytest.raises(TypeError, match="'Dim'"):
            compute(A, other)


def test_smallest_sizes() -> None:
    assert (A - 1).serves(0)
    assert [(A - 2).min, (A - 2 + B).min, (8 * B).min] == [-1, 1, 16]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(-5, 9), st.integers(0, 1000)
)
def test_written_sizes_are_those_that_are_computed(
    factors: list[int], plus: int, size: int
) -> None:
    names = [f"axis_{number}" for number in range(len(factors))]
    sizes = {name: size + number for number, name in enumerate(names)}
    derived = DerivedSize(tuple(zip(names, factors, strict=True)), plus)
    assert eval(str(derived), {}, dict(sizes)) == derived.at(sizes)
    assert eval(derived.written(lambda name: f"({name})"), {}, dict(sizes)) == derived.at(sizes)


@given(st.integers(1, 9), st.integers(-5, 9), st.integers(0, 1000))
def test_the_only_axis_is_solved_for(factor: int, plus: int, size: int) -> None:
    derived = DerivedSize((("a", factor),), plus)
    assert derived.solved(derived.at({"a": size})) == size
    assert eval(derived.solving("s"), {}, {"s": size}) == derived.solved(size)
    solved = derived.solved(size)
    assert derived.at({"a": solved}) <= size < derived.at({"a": solved + 1})
