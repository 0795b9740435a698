"""What a part of a call is compared with, and how that is said."""

from __future__ import annotations

import pytest

from hotstart.profiling.limits import rates_of
from hotstart.profiling.parts import KernelProfile
from hotstart.profiling.profile import middle_of
from tests.unit.profiling.profiles import CACHED, COPY, FUSED, LINEAR, PEAKS, SMALL, kernel


@pytest.mark.parametrize(
    ("part", "text", "standing"),
    [
        (LINEAR, "arithmetic 90 %", "at"),
        (SMALL, "arithmetic 10 %", "below"),
        (COPY, "memory 90 %", "at"),
        (FUSED, "memory 10 %", "unknown"),
        (CACHED, "in cache", "cache"),
        (kernel("mm", 1e-3, operations=20_000_000, bytes=40_000_000), "arithmetic 20 %", "below"),
        (kernel("mm", 1e-3, operations=120_000_000), "arithmetic 120 %", "at"),
        (kernel("mm", 1e-3, operations=69_900_000), "arithmetic 69 %", "below"),
        (kernel("nothing", 0.0, bytes=0), "arithmetic 0 %", "unknown"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_the_nearer_limit_counts(part: KernelProfile, text: str, standing: str) -> None:
    rates = rates_of(part.seconds, 1.0, [part], PEAKS)
    assert (rates.limit_text, rates.standing) == (text, standing)
    assert 0 <= rates.of_limit <= 1


@pytest.mark.parametrize(("seconds", "standing"), [(1e-4, "below"), (1e-3, "unknown")])
def test_nobody_knows_how_a_part_stands_of_whose_time_some_is_not_counted(
    seconds: float, standing: str
) -> None:
    uncounted = kernel("cpp_fused_add_0", seconds)
    rates = rates_of(SMALL.seconds + seconds, 1.0, [SMALL, uncounted], PEAKS)
    assert rates.standing == standing


def test_operations_that_are_not_known_are_counted_as_such() -> None:
    rates = rates_of(0.01, 0.02, [LINEAR, FUSED, SMALL], PEAKS)
    assert rates.operations == 370_000_000
    assert rates.operations_per_s == pytest.approx(37e9)
    assert (rates.uncounted, rates.share) == (1, 0.5)
    assert rates.uncounted_s == pytest.approx(2e-3)
    unknown = rates_of(0.01, 0.02, [FUSED], PEAKS)
    assert (unknown.operations, unknown.operations_per_s) == (None, None)


def test_parts_of_calls_add_up_to_the_whole_also_where_calls_differ() -> None:
    calls = [
        (3.0, {(None, 0): 1.0, (None, 1): 2.0}),
        (3.0, {(None, 0): 2.0, (None, 1): 1.0}),
        (3.0, {(None, 0): 2.0, (None, 1): 1.0}),
        (4.0, {(None, 0): 1.0, (None, 1): 3.0}),
        (99.0, {(None, 0): 98.0, (None, 1): 1.0}),
    ]
    whole, parts = middle_of(calls)
    assert sum(parts.values()) == pytest.approx(whole)
    assert whole == pytest.approx(10 / 3), "the fastest and the slowest are left out"
