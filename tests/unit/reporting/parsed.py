"""A page of HTML, read: its elements and texts, and that it closes what it opens."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Elements and ids of a page, which closes what it opens."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all_of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def with_class(self, name: str) -> list[dict[str, str]]:
        return [a for _, a in self.elements if name in a.get("class", "").split()]

    def must_ask_for_nothing(self, text: str) -> None:
        """See that nothing of it is fetched, and that its policy forbids that."""
        assert not re.search(r"(src|href|action)=.?https?:", text)
        assert not self.all_of("img")
        assert [link["href"] for link in self.all_of("link")] == ["data:,"]
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", text)
        (policy,) = (m["content"] for m in self.all_of("meta") if "http-equiv" in m)
        assert policy.startswith("default-src 'none'")

    def must_lead_somewhere(self) -> None:
        """See that links and labels within it name one element each."""
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert max(Counter(ids).values()) == 1
        assert {a["href"][1:] for a in self.all_of("a")} <= set(ids)
        labelled = {a["aria-labelledby"] for _, a in self.elements if "aria-labelledby" in a}
        assert labelled <= set(ids)
