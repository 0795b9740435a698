"""What is asked of expressions over sizes, and where torch's answers need help."""

from __future__ import annotations

import re

import pytest
import sympy
from torch.utils._sympy.functions import CeilDiv, FloorDiv, Mod
from torch.utils._sympy.value_ranges import SymPyValueRangeAnalysis, ValueRanges, bound_sympy

from hotstart._torch.graphs.symbols import (
    about,
    axis_symbol,
    bounded_negative_powers,
    expression_text,
    make_symbols,
    parse_expression,
    readable,
)

HEIGHT, WIDTH = axis_symbol("height"), axis_symbol("width")


@pytest.mark.parametrize("equal", [sympy.Eq(HEIGHT, WIDTH), sympy.Eq(WIDTH, HEIGHT)])
def test_an_axis_that_equals_a_known_one_is_known(equal: sympy.Basic) -> None:
    area = sympy.Eq(HEIGHT * WIDTH, 16)
    known = about([sympy.And(equal, area)], ["height"], {})
    assert known == (sympy.Eq(HEIGHT * HEIGHT, 16),)


def test_conditions_on_other_axes_are_left_out() -> None:
    wide = sympy.Ge(WIDTH, 8)
    assert about([wide, sympy.Ge(HEIGHT, 4)], ["height"], {}) == (sympy.Ge(HEIGHT, 4),)


def test_no_name_that_inductor_counts_up_is_part_of_a_symbols() -> None:
    made = make_symbols({f"a{n}": (2, 9, 5) for n in range(30)}).by_name.values()
    assert len(set(map(str, made))) == 30
    assert not [f"k{symbol}" for symbol in made if re.search(r"ks\d", f"k{symbol}")]


@pytest.mark.parametrize(("low", "positive"), [(0, None), (1, True)])
def test_a_symbol_is_positive_if_its_range_is(low: int, positive: bool | None) -> None:
    (symbol,) = make_symbols({"rows": (low, 9, 5)}).by_name.values()
    assert symbol.is_nonnegative
    assert symbol.is_positive is positive


def test_torch_finds_bounds_of_quotients() -> None:
    quotient = sympy.Eq(HEIGHT / (WIDTH + 1), 1)
    ranges = {HEIGHT: ValueRanges(1, 6), WIDTH: ValueRanges(1, 6)}
    before = vars(SymPyValueRangeAnalysis)["pow_by_natural"]
    with bounded_negative_powers():
        assert not bound_sympy(quotient, ranges).is_singleton()
    assert vars(SymPyValueRangeAnalysis)["pow_by_natural"] is before


@pytest.mark.parametrize(
    "condition",
    [
        sympy.Eq(HEIGHT, 4 * FloorDiv(HEIGHT, 4)),
        sympy.And(sympy.Ne(Mod(HEIGHT * WIDTH, 3), 0), HEIGHT > WIDTH),
        sympy.Or(sympy.Le(HEIGHT, 15), sympy.Not(sympy.Eq(CeilDiv(WIDTH, 2), 7))),
    ],
)
def test_a_condition_is_made_again_of_its_text(condition: sympy.Basic) -> None:
    text = expression_text(condition)
    assert text is not None
    assert parse_expression(text) == condition


def test_an_expression_of_a_function_that_is_not_torchs_has_no_text() -> None:
    class Own(sympy.Function):
        """A function of somebody's own."""

    assert expression_text(sympy.Eq(Own(HEIGHT), 1)) is None


ROWS, COLS = axis_symbol("rows"), axis_symbol("cols")


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (sympy.Le(0, ROWS - 4), "rows >= 4"),
        (sympy.Le(4, ROWS - COLS), "4 + cols <= rows"),
        (sympy.Lt(4 - 2 * COLS, ROWS), "rows + 2*cols > 4"),
        (sympy.Ne(1, ROWS), "rows != 1"),
        (sympy.Eq(Mod(ROWS, 4), 0), "(rows % 4) == 0"),
        (sympy.And(ROWS >= 3, COLS < 5), "rows >= 3 and cols < 5"),
    ],
)
def test_conditions_read_as_people_write_them(condition: sympy.Basic, text: str) -> None:
    assert readable(condition) == text
