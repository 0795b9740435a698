"""Pages in a browser: without errors, by keyboard, in both schemes, on a phone, accessible.

`make test-browser` fetches what this needs. Chromium is looked for on the PATH; axe-core is the
file that `AXE_CORE` names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hotstart.cache.look_page import look_page
from hotstart.profiling.page import page_of as profile_page
from hotstart.reporting.page import page_of
from tests.unit.cache.looks_into import NEAREST, of_many_changes
from tests.unit.profiling import profiles
from tests.unit.reporting.documents import document, of_many_pieces

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
AXE = Path(os.environ.get("AXE_CORE") or ROOT / ".venv" / "axe" / "package" / "axe.min.js")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE = {"width": 360, "height": 740}
LOCAL = ("file:", "data:")
WIDE = {"width": 1200, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    reports = {"small": document(), "forty": of_many_pieces(40), "many": of_many_pieces(500)}
    pages = {
        **{name: page_of(shown, name) for name, shown in reports.items()},
        "profile": profile_page(profiles.of_all_kinds(), "encoder.hot"),
        "profile of many": profile_page(profiles.of_many_pieces(500), "many.hot"),
        "miss": look_page(NEAREST.key, NEAREST, "shop.search:encoder", "/var/cache/models"),
        "long miss": look_page(NEAREST.key, of_many_changes(300), "shop:encoder", "cache"),
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in pages}


@pytest.fixture
def opened(browser: Any, files: dict[str, Path]) -> Iterator[Any]:
    """Opens a page; in the end, nothing was told on the console or asked of a network."""
    troubles: list[str] = []
    contexts = []

    def open_page(
        name: str, size: dict[str, int] = WIDE, scheme: str = "light", **more: Any
    ) -> Any:
        context = browser.new_context(color_scheme=scheme, viewport=size, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda r: troubles.extend([r.url] * (not r.url.startswith(LOCAL))))
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def shown(page: Any) -> int:
    count: int = page.locator("details.kind:visible").count()
    return count


def test_search_and_filter_leave_what_matches(opened: Any) -> None:
    page = opened("small")
    assert shown(page) == 2
    page.get_by_label("Search").fill("softmax")
    assert shown(page) == 1
    assert page.get_by_role("status").inner_text() == "1 of 2 kinds"
    page.get_by_label("Search").fill("nothing has this")
    assert page.get_by_text("No kind matches.").is_visible()
    page.get_by_label("Search").fill("")
    page.get_by_label("Show").select_option("repeated")
    assert shown(page) == 1
    page.get_by_label("Show").select_option("trouble")
    assert shown(page) == 0


def test_all_kinds_fold_and_unfold(opened: Any) -> None:
    page = opened("forty")
    page.get_by_role("button", name="Unfold all").click()
    assert page.locator("details.kind[open]").count() == page.locator("details.kind").count()
    page.get_by_role("button", name="Fold all", exact=True).click()
    assert page.locator("details.kind[open]").count() == 0


def test_a_tile_unfolds_its_kind_even_if_a_search_hides_it(opened: Any) -> None:
    page = opened("small")
    page.get_by_label("Search").fill("softmax")
    page.get_by_role("link", name="piece_0, kind A").click()
    assert page.locator("#kind-A").get_attribute("open") is not None
    assert page.locator("#kind-A > summary").evaluate("e => e === document.activeElement")
    assert shown(page) == 2


def test_a_ribbon_is_walked_with_arrow_keys(opened: Any) -> None:
    page = opened("many")

    def title() -> str:
        found: str = page.evaluate("document.activeElement.title.split(':')[0]")
        return found

    page.locator(".ribbon a").first.focus()
    page.keyboard.press("ArrowRight")
    assert title() == "piece_1"
    page.keyboard.press("End")
    assert title() == "piece_499"
    page.keyboard.press("ArrowUp")
    above = int(title().removeprefix("piece_"))
    assert 440 < above < 499
    page.keyboard.press("ArrowDown")
    assert above < int(title().removeprefix("piece_"))
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    assert not page.evaluate("Boolean(document.activeElement.closest('.ribbon'))")


@pytest.mark.parametrize("name", ["small", "profile"])
def test_focus_is_seen(opened: Any, name: str) -> None:
    page = opened(name)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(12):
        page.keyboard.press("Tab")
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px"


@pytest.mark.parametrize(
    "name", ["small", "forty", "many", "profile", "profile of many", "miss", "long miss"]
)
def test_a_phone_scrolls_down_only(opened: Any, name: str) -> None:
    page = opened(name, PHONE)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("name", ["small", "profile", "miss"])
def test_both_schemes_have_a_ground_of_their_own(opened: Any, name: str) -> None:
    grounds = {
        opened(name, scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert len(grounds) == 2


def test_a_profile_unfolds_by_keyboard_and_its_links_lead_to_pieces(opened: Any) -> None:
    page = opened("profile")
    page.locator("#part-A > summary").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("group", name="Kernels of A").is_visible()
    page.get_by_role("link", name="B, piece_2").first.click()
    assert page.evaluate("location.hash") == "#part-B"


def test_bars_of_a_profile_are_as_long_as_they_say(opened: Any) -> None:
    page = opened("profile")
    widths = page.locator("#kernels .meter").evaluate_all(
        "meters => meters.map(m => m.firstChild.offsetWidth / m.offsetWidth)"
    )
    said = page.locator("#kernels .limit").all_inner_texts()
    told = [float(text.split()[-2]) / 100 if "%" in text else 1.0 for text in said]
    assert widths == pytest.approx(told, abs=0.03)
    parts = page.locator(".stood span").evaluate_all(
        "parts => parts.reduce((sum, p) => sum + p.getBoundingClientRect().width, 0)"
    )
    assert parts == pytest.approx(page.locator(".stood").bounding_box()["width"], abs=3)


def test_a_page_without_script_shows_all(opened: Any) -> None:
    page = opened("small", java_script_enabled=False)
    assert shown(page) == 2
    assert not page.locator("#search").is_visible()
    page.locator("#kind-A > summary").click()
    assert page.get_by_text("# the line of a block").first.is_visible()


def test_five_hundred_pieces_are_searched_without_a_pause(opened: Any) -> None:
    page = opened("many")
    took = page.evaluate(
        """() => {
            const search = document.getElementById("search");
            const began = performance.now();
            search.value = "blocks.49";
            search.dispatchEvent(new Event("input"));
            document.body.offsetHeight;
            return performance.now() - began;
        }"""
    )
    assert took < 500
    assert 0 < shown(page) < page.locator("details.kind").count()


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light")])
@pytest.mark.parametrize("name", ["small", "forty", "profile", "miss"])
def test_axe_finds_nothing(opened: Any, name: str, size: dict[str, int], scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip(f"axe-core is not at {AXE}; AXE_CORE names another place")
    page = opened(name, size, scheme, bypass_csp=True)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.add_script_tag(content=AXE.read_text())
    found = page.evaluate(f"axe.run(document, {{runOnly: {RULES}}})")
    told = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
    assert told == []
