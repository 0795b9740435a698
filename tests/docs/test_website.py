"""How pages become a site: links, lists, pictures; and links within the repository."""

from __future__ import annotations

import os
import re

import pytest

from tests.docs.blocks import ROOT, pages
from website.links import moved, nested, staged
from website.pictures import FOLDER, pictures
from website.screenshots import MOST_BYTES, SHOTS
from website.stage import DeadLink, place

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def test_pictures_are_what_the_code_draws() -> None:
    """`python -m website.pictures` writes them."""
    assert {name: (FOLDER / name).read_text() for name in pictures()} == pictures()


def test_photographs_are_those_of_the_list_small_and_shown() -> None:
    """`make docs-images` takes them."""
    files = {file.stem: file.stat().st_size for file in FOLDER.glob("*.png")}
    assert set(files) == {shot.name for shot in SHOTS}
    assert max(files.values()) < MOST_BYTES
    shown = "".join((ROOT / page).read_text() for page in pages())
    assert [name for name in files if f"img/{name}.png)" not in shown] == []


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("cache.md#signed", "../cache.md#signed"),
        ("../SECURITY.md", "../project/security.md"),
        ("../examples/serve.py", "../examples/serve_py.md"),
        ("../docs/adr", "../adr/decisions.md"),
        ("https://docs.ray.io", "https://docs.ray.io"),
        ("#here", "#here"),
    ],
)
def test_links_lead_to_pages_of_the_site(link: str, found: str) -> None:
    assert moved(link, "docs/page.md", "howto/page.md", place) == found


def test_a_link_to_nothing_is_an_error() -> None:
    with pytest.raises(DeadLink, match=r"nothing\.md"):
        staged("[this](nothing.md)", "docs/page.md", "page.md", place)


def test_code_is_left_as_it_is() -> None:
    text = "```python\nrun[0](nothing.md)\n- a\n  - b\n```"
    assert staged(text, "docs/page.md", "page.md", place) == text


def test_nested_lists_are_indented_by_four() -> None:
    text = "- a\n  more\n  - b\n\n1. c\n   - d\n     1. e\n\nend\n  as it is"
    assert nested(text) == (
        "- a\n    more\n    - b\n\n1. c\n    - d\n        1. e\n\nend\n  as it is"
    )


@pytest.mark.parametrize("page", pages())
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    dead = [link for link in _LINK.findall(_FENCED.sub("", text)) if not leads(page, link)]
    assert dead == []


def leads(page: str, link: str) -> bool:
    """Whether there is a file, and a heading in it, where a link of a page leads."""
    path, _, anchor = link.partition("#")
    if ":" in path:
        return True
    target = ROOT / os.path.normpath(ROOT / page / ".." / path) if path else ROOT / page
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text())


def anchors(text: str) -> set[str]:
    """The anchors of headings, as sites of Markdown make them."""
    found = _HEADING.findall(_FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}
