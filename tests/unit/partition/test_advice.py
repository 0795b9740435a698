"""Errors say what to declare where a condition does not hold for all sizes."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
from torch.utils._sympy.functions import FloorDiv

from hotstart._torch.graphs.symbols import axis_symbol
from hotstart.partition.advice import Domain, advise, advise_leaving_out, advise_several
from hotstart.records.shapes import Interval

A, B, C = axis_symbol("a"), axis_symbol("b"), axis_symbol("c")
HINTS = {"a": 32, "b": 16, "c": 24}
SIZES = {"a": Interval(3, 64), "b": Interval(1, 64), "c": Interval(0, 64)}


def domain(*intervals: Interval) -> Domain:
    named = dict(zip("ab", intervals, strict=False))
    return Domain(named, named, HINTS)


@pytest.mark.parametrize(
    ("condition", "advice"),
    [
        (sympy.Ne(A, 1), "give Dim('a', ..., sizes=[1])"),
        (sympy.Le(A, 14), "sizes=[15, 16]"),
        (sympy.Ge(A, 6), "declare 'a' as 6..16, or split it there"),
        (sympy.Eq(A, 4), "one by one: sizes=[4], ranges=[]"),
        (sympy.Eq(sympy.Mod(A, 2), 0), "declare 'a' as 2 * Dim('a', min=1, max=8)"),
        (sympy.Gt(sympy.Mod(A, 4), 1), "it holds for 2..3, 6..7, 10..11, 14..15, ...; declare one"),
        (
            sympy.Eq(FloorDiv(A, 2), 2 * FloorDiv(A, 4)),
            "declare 'a' as 4 * Dim('a', min=1, max=4)",
        ),
        (sympy.Gt(A, 20), "no size in 1..16 meets the condition"),
    ],
)
def test_advice_says_what_to_declare(condition: Any, advice: str) -> None:
    assert advice in advise("a", condition, domain(Interval(1, 16)))


def test_axes_that_must_be_equal_are_advised_to_be_one() -> None:
    assert "give 'a' and 'b' the same Dim" in advise_several(
        sympy.Eq(A, B), domain(SIZES["a"], SIZES["b"])
    )


@pytest.mark.parametrize(
    ("condition", "advice"),
    [
        (sympy.Eq(C, A + B), "declare 'c' as a + b, "),
        (sympy.Eq(A + B - 2, C), "declare 'c' as a + b - 2, "),
        (sympy.Eq(A - 1, B), "declare 'a' as b + 1, "),
        (sympy.Eq(4 * B, A), "declare 'a' as 4*b, "),
        (sympy.Eq(4 * B, 3 * A), "declare ranges of"),
        (sympy.Eq(A + B, 8), "declare ranges of"),
        (
            sympy.Eq(A * B, 64 * FloorDiv(A, 8) * FloorDiv(B, 8)),
            "declare 'a' as 8 * Dim('a', min=1, max=8) and 'b' as 8 * Dim('b', min=1, max=8)",
        ),
        (sympy.Eq(A * B, 10**6 * FloorDiv(A, 1000) * FloorDiv(B, 1000)), "declare ranges of"),
        (sympy.Le(A, B), "declare ranges of"),
        (sympy.Eq(sympy.Mod(A * B, 32), 0), "declare 'a' as 32 * Dim('a', min=1, max=2)"),
    ],
)
def test_axes_that_follow_from_others_are_advised_to_be_declared_so(
    condition: Any, advice: str
) -> None:
    about = {name: SIZES[name] for name in sorted(map(str, condition.free_symbols))}
    assert advice in advise_several(condition, Domain(about, about, HINTS))


@pytest.mark.parametrize(
    ("condition", "advice"),
    [
        (sympy.Eq(sympy.Mod(A, 16), 0), "declare 'a' as 16 * Dim('a', min=1, max=4); for other"),
        (sympy.Eq(sympy.Mod(A, 4), 1), "declare 'a' as 4 * Dim('a', min=1, max=15) + 1; for other"),
        (sympy.Eq(sympy.Mod(A, 30), 0), "declare 'a' as 30..30 or 60..60; for other"),
        (sympy.Ge(A, 7), "declare 'a' as 7..64; for other"),
    ],
)
def test_sizes_that_can_be_captured(condition: Any, advice: str) -> None:
    assert advice in advise_leaving_out("a", condition, domain(SIZES["a"]))


def test_sizes_without_an_end_are_not_counted_through() -> None:
    endless = Interval(2, 2**63 - 2)
    assert "split it there" in advise("a", sympy.Ge(A, 7), domain(endless))
    steps = f"8 * Dim('a', min=1, max={endless.hi // 8})"
    assert steps in advise("a", sympy.Eq(sympy.Mod(A, 8), 0), domain(endless))
