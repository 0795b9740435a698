from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotstart.errors import OptionsError
from hotstart.records.dims import Dim, variants
from hotstart.records.shapes import Interval, Variant


def ends(dim: Dim) -> list[tuple[int, int]]:
    return [(r.lo, r.hi) for r in dim.ranges]


# --- one axis -----------------------------------------------------------------------------------


def test_one_range_by_default() -> None:
    dim = Dim("seq", max=512)
    assert (dim.min, dim.max, ends(dim), dim.sizes) == (1, 512, [(1, 512)], ())


@pytest.mark.parametrize(
    ("ranges", "filled"),
    [
        ([(1, 512)], [(1, 512)]),
        ([(1, 64)], [(1, 64), (65, 512)]),
        ([(65, 512)], [(1, 64), (65, 512)]),
        ([(10, 20)], [(1, 9), (10, 20), (21, 512)]),
        ([(100, 200), (10, 20)], [(1, 9), (10, 20), (21, 99), (100, 200), (201, 512)]),
        ([(1, 1), (512, 512)], [(2, 511)]),
        ([(1, 64), (65, 512)], [(1, 64), (65, 512)]),
    ],
)
def test_gaps_get_ranges_of_their_own(
    ranges: list[tuple[int, int]], filled: list[tuple[int, int]]
) -> None:
    assert ends(Dim("seq", min=1, max=512, ranges=ranges)) == filled


def test_bounds_come_from_ranges_and_sizes() -> None:
    dim = Dim("seq", ranges=[(8, 64)], sizes=[4, 100])
    assert (dim.min, dim.max) == (4, 100)
    assert ends(dim) == [(5, 7), (8, 64), (65, 99)]


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ([1], [(2, 16)]),
        ([16], [(1, 15)]),
        ([1, 2, 3], [(4, 16)]),
        ([1, 16], [(2, 15)]),
        ([3, 1], [(2, 16)]),
        ([8], [(1, 16)]),  # in the middle: the range stays whole, the single size takes precedence
        (range(1, 17), []),
    ],
)
def test_sizes_are_cut_off_the_ends_of_ranges(
    sizes: list[int], left: list[tuple[int, int]]
) -> None:
    dim = Dim("batch", min=1, max=16, sizes=sizes)
    assert ends(dim) == left
    assert dim.sizes == tuple(sorted(sizes))


@pytest.mark.parametrize("ranges", [None, [(4, 4)]])
def test_a_range_of_one_size_is_a_single_size(ranges: list[tuple[int, int]] | None) -> None:
    dim = Dim("batch", min=4, max=4, ranges=ranges)
    assert (dim.ranges, dim.sizes, dim.choices) == ((), (4,), (4,))


def test_sizes_that_fill_a_gap_leave_no_range_in_it() -> None:
    assert ends(Dim("batch", min=1, max=16, ranges=[(3, 16)], sizes=[2, 1])) == [(3, 16)]


def test_only_sizes() -> None:
    dim = Dim("batch", ranges=[], sizes=[1, 8])
    assert dim.choices == (1, 8)
    assert [size for size in range(10) if dim.serves(size)] == [1, 8]


def test_an_interval_is_as_good_as_a_pair() -> None:
    dim = Dim("seq", max=9, ranges=[(1, 4)])
    again = Dim("seq", max=9, ranges=dim.ranges)  # type: ignore[arg-type]
    assert again == dim


def test_text_says_what_is_served() -> None:
    assert str(Dim("seq", max=64, ranges=[(1, 8)], sizes=[1])) == "1..64"
    assert str(Dim("seq", ranges=[], sizes=[1, 2, 9])) == "1..2 or 9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a b", "max": 4}, "takes an identifier"),
        ({"name": 3, "max": 4}, "takes an identifier"),
        ({}, "give max="),
        ({"min": 4}, "give max="),
        ({"min": 5, "max": 4}, "min=5 is above max=4"),
        ({"min": -1, "max": 4}, "got size -1"),
        ({"max": True}, "got size True"),
        ({"max": 4.0}, "got size 4.0"),
        ({"max": 4, "ranges": [(2, 9)]}, "9 lies outside min=2..max=4"),
        ({"min": 2, "max": 4, "sizes": [1]}, "1 lies outside min=2..max=4"),
        ({"max": 9, "ranges": [(1, 4), (4, 8)]}, "1..4 and 4..8 overlap"),
        ({"max": 9, "ranges": [(2, 8), (3, 4)]}, "2..8 and 3..4 overlap"),
        ({"max": 9, "ranges": [(4, 2)]}, "range 4..2 is empty"),
        ({"max": 9, "ranges": ["12"]}, "takes a pair"),
        ({"max": 9, "ranges": [3]}, "takes a pair"),
        ({"max": 9, "ranges": []}, "neither ranges nor sizes"),
    ],
)
def test_errors_say_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=re.escape(message)):
        Dim(**{"name": "seq", **arguments})


# --- variants -----------------------------------------------------------------------------------


def test_no_axes_make_one_static_variant() -> None:
    (only,) = variants([])
    assert (only.name, only.intervals(), only.covers({})) == ("static", {}, True)


def test_variants_with_the_most_ranges_come_first() -> None:
    batch = Dim("batch", min=1, max=8, sizes=[1])
    seq = Dim("seq", min=1, max=64, ranges=[(2, 16)], sizes=[1])
    assert [variant.name for variant in variants([batch, seq])] == [
        "batch=2..8,seq=2..16",
        "batch=2..8,seq=17..64",
        "batch=2..8,seq=1",
        "batch=1,seq=2..16",
        "batch=1,seq=17..64",
        "batch=1,seq=1",
    ]


def test_a_variant_tells_its_choices() -> None:
    variant = Variant((("batch", 1), ("seq", Interval(2, 64))))
    assert variant.name == "batch=1,seq=2..64"
    assert (variant.of("batch"), variant.of("seq")) == (1, Interval(2, 64))
    assert variant.intervals() == {"batch": Interval(1, 1), "seq": Interval(2, 64)}
    assert variant.covers({"batch": 1, "seq": 64})
    assert not variant.covers({"batch": 2, "seq": 64})
    assert not variant.covers({"batch": 1, "seq": 65})


# --- properties ---------------------------------------------------------------------------------

LARGEST = 24


@st.composite
def dims(draw: st.DrawFn, name: str = "seq") -> Dim:
    """Any valid axis over small sizes."""
    low = draw(st.integers(0, LARGEST))
    high = draw(st.integers(low, LARGEST))
    within = st.integers(low, high)
    sizes = draw(st.lists(within, max_size=6))
    # Neighbouring cuts bound ranges that cannot overlap; a random part of them is declared.
    cuts = sorted(draw(st.sets(within, max_size=6)))
    pairs = [(a, b - 1) for a, b in itertools.pairwise(cuts)]
    ranges = [pair for pair in pairs if draw(st.booleans())]
    return Dim(name, min=low, max=high, ranges=draw(st.permutations(ranges)) or None, sizes=sizes)


@given(dims())
def test_every_size_is_covered_by_exactly_one_range_or_is_a_size(dim: Dim) -> None:
    for size in range(LARGEST + 3):
        holding = [r for r in dim.ranges if size in r]
        inside = dim.min <= size <= dim.max
        assert dim.serves(size) == inside
        assert len(holding) <= 1
        assert bool(holding) or size in dim.sizes or not inside


@given(dims())
def test_ranges_are_sorted_whole_and_inside(dim: Dim) -> None:
    assert list(dim.ranges) == sorted(dim.ranges)
    assert all(dim.min <= r.lo <= r.hi <= dim.max for r in dim.ranges)
    assert not any(end in dim.sizes for r in dim.ranges for end in (r.lo, r.hi))


@given(dims())
def test_declaring_what_was_filled_in_changes_nothing(dim: Dim) -> None:
    assert Dim(dim.name, dim.min, dim.max, ends(dim), dim.sizes) == dim


@given(dims("batch"), dims("seq"), st.data())
def test_every_call_has_exactly_one_most_static_variant(
    batch: Dim, seq: Dim, data: st.DataObject
) -> None:
    sizes = {
        "batch": data.draw(st.integers(batch.min, batch.max)),
        "seq": data.draw(st.integers(seq.min, seq.max)),
    }
    made = variants([batch, seq])
    assert len({variant.name for variant in made}) == len(made)
    covering = [variant for variant in made if variant.covers(sizes)]
    statics = [sum(isinstance(c, int) for _, c in variant.choices) for variant in covering]
    assert statics == sorted(statics)
    assert statics.count(max(statics)) == 1
