"""The page: its structure, which needs no browser to be looked at."""

from __future__ import annotations

import sys

import pytest
import torch
from msgspec.structs import replace

import hotstart
from hotstart import Options, OptionsError
from hotstart.reporting.looks import COLOURS
from hotstart.reporting.page import page_of
from hotstart.reporting.timeline import ticks_of
from hotstart.reporting.view import kinds_of
from tests.unit.reporting.documents import Stack, document, of_many_pieces
from tests.unit.reporting.parsed import Page


@pytest.fixture(scope="module")
def text() -> str:
    return page_of(document(), "small.report.json")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_a_page_asks_for_nothing(text: str, page: Page) -> None:
    page.must_ask_for_nothing(text)


def test_what_a_document_says_is_escaped(text: str, page: Page) -> None:
    assert ("h1", "<b>small</b>.hot") in page.texts
    assert len(page.all_of("script")) == 1
    assert "alert(1)&lt;/script&gt;" in text


def test_every_link_within_the_page_leads_somewhere(page: Page) -> None:
    page.must_lead_somewhere()


def test_controls_have_names(page: Page) -> None:
    named = {label["for"] for label in page.all_of("label")}
    assert {each["id"] for tag in ("input", "select") for each in page.all_of(tag)} == named
    assert ("button", "Unfold all") in page.texts


def test_a_ribbon_has_a_tile_for_each_piece_and_equal_ones_look_alike(page: Page) -> None:
    tiles = [a for a in page.all_of("a") if "tile" in a.get("class", "")]
    assert [tile["data-kind"] for tile in tiles] == ["A", "A", "A", "B"]
    assert [tile["class"] for tile in tiles] == [*["tile c0 p0"] * 3, "tile once"]
    assert tiles[1]["title"] == "piece_1: blocks.1"


def test_a_kind_shows_operators_lines_and_code(page: Page) -> None:
    kinds = page.with_class("kind")
    assert [kind["id"] for kind in kinds] == ["kind-A", "kind-B"]
    said = [data for _, data in page.texts]
    assert "torch.nn.functional.linear" in said
    assert any(data.endswith("# the line of a block") for data in said)
    assert "def" in said  # a keyword of generated code
    assert "torch.relu" in kinds[0]["data-search"]


def test_an_artifact_alone_gives_a_page_that_says_what_is_missing() -> None:
    alone = replace(document(), kind="file", details=type(document().details)())
    said = " ".join(data for _, data in Page(page_of(alone, "x")).texts)
    assert "an artifact alone does not hold them" in said


def test_warnings_lead_to_their_piece() -> None:
    page = Page(page_of(of_many_pieces(40), "x"))
    said = [data for _, data in page.texts]
    assert {"piece_5", "its strides are not known", "in 3 calls so far"} <= set(said)
    assert len(page.with_class("grave")) == 2


def test_five_hundred_pieces_have_tiles_of_different_looks() -> None:
    many = of_many_pieces(500)
    text = page_of(many, "x")
    assert len(Page(text).with_class("ribbon")) == 1
    assert len(text) < 2_000_000
    styles = [kind.style for kind in kinds_of(many, many.manifest()) if kind.style]
    assert len(styles) > COLOURS
    assert len(set(styles)) == min(len(styles), 32)


def test_calls_have_ribbons_of_their_own_and_inlined_pieces_are_marked() -> None:
    calls = {
        name: hotstart.Call(args=(torch.zeros(rows, 4),)) for name, rows in (("a", 2), ("b", 3))
    }
    program = hotstart.compile(
        Stack().eval(), calls=calls, split_on=["relu"], options=Options(compiler="op_by_op")
    )
    page = Page(page_of(program.document(), "x"))
    assert len(page.with_class("ribbon")) == 2
    assert {("h3", "a"), ("h3", "b")} <= set(page.texts)
    inlined = [a for a in page.all_of("a") if "inlined" in a.get("class", "").split()]
    assert len(inlined) == 6


def test_labels_go_on_after_z() -> None:
    many = of_many_pieces(500)
    labels = [kind.label for kind in kinds_of(many, many.manifest())]
    assert labels[25:28] == ["Z", "AA", "AB"]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("seconds", [0.0003, 0.02, 1.0, 17.6, 4000.0])
def test_a_timeline_has_some_ticks(seconds: float) -> None:
    ticks = ticks_of(seconds)
    assert 5 <= len(ticks) <= 14
    assert all(0 <= place <= 95 for place, _ in ticks), "the label of a later one is cut off"


@pytest.mark.parametrize("package", ["jinja2", "pygments"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in sys.modules if name.startswith((package, "hotstart.reporting.h"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delattr("hotstart.reporting.highlight", raising=False)
    with pytest.raises(OptionsError, match=rf"{package}.*\ndo: pip install 'hotstart\[report\]'"):
        page_of(document(), "x")
