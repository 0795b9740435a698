"""The page of a profile: its structure, which needs no browser to be looked at."""

from __future__ import annotations

import sys

import pytest
from msgspec.structs import replace

from hotstart.errors import OptionsError
from hotstart.profiling.page import look_first, si_text, stood_of
from hotstart.profiling.page import page_of as profile_page
from hotstart.profiling.rows import slowest_first
from tests.unit.profiling.profiles import (
    COPY,
    LINEAR,
    kernel,
    of_all_kinds,
    of_many_pieces,
    piece,
    profile,
)
from tests.unit.reporting.parsed import Page


@pytest.fixture(scope="module")
def text() -> str:
    return profile_page(of_all_kinds(), "<b>encoder</b>.hot")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def said(page: Page) -> list[str]:
    return [data for _, data in page.texts]


def test_a_page_asks_for_nothing_and_runs_nothing(text: str, page: Page) -> None:
    page.must_ask_for_nothing(text)
    assert not page.all_of("script")
    (policy,) = (m["content"] for m in page.all_of("meta") if "http-equiv" in m)
    assert "script-src 'none'" in policy


def test_names_are_escaped(page: Page) -> None:
    assert ("h1", "<b>encoder</b>.hot") in page.texts
    assert "<head>" in said(page)


def test_every_link_within_the_page_leads_somewhere(page: Page) -> None:
    page.must_lead_somewhere()


def test_equal_pieces_are_one_row_and_look_alike(page: Page) -> None:
    assert [part["id"] for part in page.with_class("kind")] == [
        "part-A", "part-B", "part-C", "part-D",
    ]  # fmt: skip
    bars = [attributes["class"] for tag, attributes in page.elements if tag == "li" and "style" in
            attributes]  # fmt: skip
    assert bars == ["c0 p0", "c0 p0", "once", "once", "once"]
    assert "piece_0 to piece_1" in said(page)


def test_operations_that_are_not_known_are_said_to_be_so(page: Page) -> None:
    told = said(page)
    assert "not known" in told
    assert ", of 2 of 4 kernels; those of the others are not known" in " ".join(told).replace(
        "  ", " "
    ).replace(" ,", ",")
    assert "operations not known" in told


def test_each_row_has_a_bar_and_words(page: Page) -> None:
    meters = page.with_class("meter")
    rows = of_all_kinds().rows()
    assert len(meters) == len(rows) + 2 * len(slowest_first(rows))
    assert {meter["aria-hidden"] for meter in meters} == {"true"}
    assert {"at the limit", "below both limits"} <= set(said(page))


def test_what_runs_op_by_op_says_why(page: Page) -> None:
    assert any("its strides are not known" in data for data in said(page))


def test_time_is_told_by_how_near_it_is_to_a_limit() -> None:
    measured = of_all_kinds()
    stood = {each.standing: each for each in stood_of(measured, slowest_first(measured.rows()))}
    assert stood["at"].seconds == pytest.approx(9e-3)
    assert stood["unknown"].seconds == pytest.approx(5e-3)
    assert stood["below"].seconds == stood["cache"].seconds == pytest.approx(1e-3)
    assert stood["between"].seconds == pytest.approx(0.1 * 16e-3)
    assert sum(each.share for each in stood.values()) == pytest.approx(1)


def test_where_to_look_first_leaves_out_what_is_at_a_limit_or_short() -> None:
    measured = profile(
        piece("piece_0", "a", LINEAR, COPY, kernel("slow", 3e-3), kernel("short", 1e-6))
    )
    assert [each.name for each in look_first(slowest_first(measured.rows()))] == ["slow"]
    fast = Page(profile_page(profile(piece("piece_0", "a", LINEAR))))
    assert any(data.startswith("Nowhere: ") for data in said(fast))


def test_a_busy_machine_is_told() -> None:
    assert not any(
        "times may be too long" in data for data in said(Page(profile_page(of_all_kinds())))
    )
    busy = Page(profile_page(replace(of_all_kinds(), load=9.0)))
    assert any("times may be too long" in data for data in said(busy))


def test_five_hundred_pieces_make_a_page_that_can_be_read() -> None:
    text = profile_page(of_many_pieces(500), "many")
    page = Page(text)
    assert len(text) < 600_000
    assert len(page.with_class("lane")) == 1
    assert any(data.endswith(" more") for data in said(page))


def test_a_call_with_a_name_is_named() -> None:
    named = replace(of_all_kinds(), call="decode", repeats=1, threads=1, native=False)
    page = Page(profile_page(named))
    assert ("h1", "decode: batch=1..8") in page.texts
    assert "in Python, 1 thread, median of 1 call." in " ".join(said(page))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.25e9, "1.25 GB/s"), (439e9, "439 GB/s"), (12, "12 B/s"), (4.94e10, "49.4 GB/s")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert si_text(value, "B/s") == text


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(OptionsError, match=r"jinja2.*\ndo: pip install 'hotstart\[report\]'"):
        profile_page(of_all_kinds())
