"""A part that is split leaves no size out, and parts of the same variant are split alike."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from hotstart import Dim, RangeError
from hotstart._torch.graphs.symbols import Condition, axis_symbol, holds_at
from hotstart.records.shapes import Interval, Variant
from hotstart.specialize.parts import Split, VariantPart
from hotstart.specialize.split import Declaration, Splits, split_at

A, B = axis_symbol("a"), axis_symbol("b")
MOD = sympy.Mod

decisions = st.sampled_from(
    [
        sympy.Ne(A, 1), sympy.Ne(B, 1), A <= 5, B > 3, sympy.Eq(MOD(A, 2), 0),
        sympy.Eq(MOD(B, 3), 1), A * B <= 12, A < B, sympy.Eq(A, B), sympy.Ne(A + B, 7),
    ]
)  # fmt: skip


@given(st.lists(decisions, min_size=1, max_size=3, unique=True))
@settings(deadline=None, max_examples=60)
def test_a_split_leaves_nothing_out_and_nothing_twice(conditions: Any) -> None:
    choices = (("a", Interval(1, 8)), ("b", Interval(1, 6)))
    whole = VariantPart(Variant(choices), choices, {"a": 5, "b": 2})
    made = split_at(whole, [Condition(c, "") for c in conditions], whole.hints)
    if made is None:
        every = ({"a": a, "b": b} for a, b in itertools.product(range(1, 9), range(1, 7)))
        assert not any(all(holds_at(c, sizes) for c in conditions) for sizes in every)
        return
    for a, b in itertools.product(range(1, 9), range(1, 7)):
        sizes = {"a": a, "b": b}
        (part,) = (part for part in made.into if part.variant.covers(sizes))
        if part is made.into[0]:
            assert all(holds_at(condition, sizes) for condition in conditions)


def assumed(expr: sympy.Basic) -> Condition:
    return Condition(expr, "somewhere")


def names(split: Split) -> list[str]:
    return [part.variant.name for part in split.into]


def test_a_condition_that_hints_do_not_meet_splits_around_sizes_that_do() -> None:
    (part,) = Declaration([Dim("a", min=0, max=9)], {"a": 1}, 8).parts()
    part = replace(part, hints={"a": 1})
    made = split_at(part, [assumed(sympy.Ne(A, 1))], {"a": 1})
    assert made is not None
    assert all(part.variant.covers(part.hints) for part in made.into)
    assert made.into[0].hints != {"a": 1}
    assert split_at(part, [assumed(A > 9)], {"a": 1}) is None


def test_a_side_without_sizes_is_no_part() -> None:
    (part,) = Declaration([Dim("a", max=9), Dim("b", max=3)], {"a": 6, "b": 2}, 8).parts()
    part = part.only(sympy.Gt(A, 3 * B - 1))
    made = split_at(part, [assumed(B < 3), assumed(A > 1)], {"a": 6, "b": 2})
    assert made is not None
    assert all(part.variant.covers(part.hints) for part in made.into)
    assert made.further == 1


def test_parts_of_one_declared_variant_are_split_alike() -> None:
    declaration = Declaration([Dim("a", max=40, ranges=[(1, 20)])], {"a": 12}, 8)
    first, other = declaration.parts()
    splits = Splits(declaration)
    even, odd = splits.split(first, [assumed(sympy.Eq(MOD(A, 2), 0))]).into
    made = splits.split_alike([even, odd, other], assumed(A > 9))
    assert [names(split) for split in made] == [
        ["a=10..20 where (a % 2) == 0", "a=1..9 where (a % 2) == 0"],
        ["a=1..9 where (a % 2) != 0", "a=10..20 where (a % 2) != 0"],
        ["a=21..40"],
    ]
    assert [split.part for split in splits.made] == [first, even, odd]
    assert [splits.origin(part) for part in (first, odd)] == [None, splits.made[0]]


def test_others_stay_whole_where_they_would_need_a_condition_or_room() -> None:
    def split_both(condition: sympy.Basic, limit: int) -> list[int]:
        declaration = Declaration([Dim("a", max=20)], {"a": 12}, limit)
        splits = Splits(declaration)
        halves = splits.split(*declaration.parts(), [assumed(A > 9)])
        made = splits.split_alike(halves.into, assumed(condition))
        return [len(split.into) for split in made]

    assert split_both(sympy.Eq(MOD(A, 2), 0), 8) == [2, 1]
    assert split_both(sympy.Ne(MOD(A, 9), 8), 8) == [2, 2]
    assert split_both(sympy.Ne(MOD(A, 9), 8), 2) == [2, 1]
    with pytest.raises(RangeError, match="somewhere"):
        split_both(sympy.Ne(MOD(A, 9), 8), 1)


def test_a_condition_that_holds_throughout_is_no_reason_to_split() -> None:
    declaration = Declaration([Dim("a", max=9)], {"a": 5}, 8)
    with pytest.raises(RangeError, match="a > 0"):
        Splits(declaration).split_alike(declaration.parts(), assumed(A > 0))
