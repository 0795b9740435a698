from __future__ import annotations

import itertools
from typing import Any

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._sympy.functions import Mod, PythonMod

from hotstart._torch.graphs.symbols import axis_symbol
from hotstart.partition.conditions import (
    ENUMERATED,
    HALVINGS,
    counterexample,
    where_it_holds,
)
from hotstart.records.shapes import Interval

A, B = axis_symbol("a"), axis_symbol("b")
LARGE = Interval(1, ENUMERATED)


def box(a: tuple[int, int] = (1, 8), b: tuple[int, int] = (1, 8)) -> dict[Any, Interval]:
    return {A: Interval(*a), B: Interval(*b)}


@pytest.mark.parametrize(
    "condition",
    [sympy.true, True, sympy.Ge(A, 1), sympy.Le(A * B, 64), sympy.Ne(A + B, 1), sympy.Eq(A - A, 0)],
)
def test_a_condition_that_holds_throughout_has_no_counterexample(condition: Any) -> None:
    assert counterexample(condition, box()) is None


def test_a_condition_that_divides_by_zero_does_not_hold_there() -> None:
    condition = sympy.Eq(Mod(A, PythonMod(A, 4)), 0)
    assert counterexample(condition, box((4, 4))) == {A: 4}
    assert where_it_holds(condition, A, Interval(1, 8)) == [Interval(1, 3), Interval(5, 6)]


def test_a_condition_that_fails_for_one_size_is_found_out() -> None:
    assert counterexample(sympy.Ne(A, 5), box()) == {A: 5}


def test_only_the_axes_of_a_condition_are_in_a_counterexample() -> None:
    assert counterexample(sympy.Eq(sympy.Mod(B, 2), 0), box()) == {B: 1}


def test_a_large_box_is_proven_by_intervals() -> None:
    assert counterexample(sympy.Ge(A * B, 1), {A: LARGE, B: LARGE}) is None


HARD = sympy.Ne(sympy.Mod(A * A, 7), 3)
"""Holds for every size; intervals do not show it."""


def test_a_large_box_is_split_until_its_parts_can_be_tried() -> None:
    assert counterexample(HARD, {A: Interval(1, 4 * ENUMERATED)}) is None
    late = sympy.Ne(sympy.Mod(A, 4 * ENUMERATED), 4 * ENUMERATED - 1)
    assert counterexample(late, {A: Interval(1, 4 * ENUMERATED)}) == {A: 4 * ENUMERATED - 1}


@pytest.mark.thorough
def test_what_is_not_proven_is_not_served() -> None:
    assert counterexample(HARD, {A: Interval(1, ENUMERATED * HALVINGS * 4)}) is not None


def test_sizes_without_an_end_are_not_counted_through() -> None:
    endless = {A: Interval(2, 2**63 - 2), B: Interval(2, 2**63 - 2)}
    assert counterexample(sympy.Le(A * B, 1), endless) == {A: 2, B: 2}
    assert counterexample(sympy.Ge(A + B, 4), endless) is None


conditions = st.builds(
    lambda relation, left, right: relation(left, right),
    st.sampled_from([sympy.Eq, sympy.Ne, sympy.Le, sympy.Gt]),
    st.sampled_from([A, A + B, A * B, A - B, sympy.Mod(A, 3), 2 * A - B, sympy.floor(A / 2)]),
    st.sampled_from([B, sympy.Integer(0), sympy.Integer(3), 2 * B]),
)
intervals = st.tuples(st.integers(0, 6), st.integers(0, 4)).map(lambda t: (t[0], t[0] + t[1]))


@given(conditions, intervals, intervals)
def test_it_agrees_with_trying_every_point(
    condition: Any, a: tuple[int, int], b: tuple[int, int]
) -> None:
    failing = [
        {A: x, B: y}
        for x, y in itertools.product(range(a[0], a[1] + 1), range(b[0], b[1] + 1))
        if not condition.subs({A: x, B: y})
    ]
    found = counterexample(condition, box(a, b))
    assert (found is None) == (not failing)
    if found is not None:
        assert not condition.subs(found)
