"""Find the code of the docs: fenced and indented blocks, by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PARSER = MarkdownIt("commonmark")
_TITLE = re.compile(r'title="([^"]+)"')


class Block(NamedTuple):
    """A block of code of a page.

    Attributes:
        page: from the root of the repository, such as `docs/cache.md`.
        line: number of the first line of its code in the page.
        language: what its fence says; empty for an indented one.
        file: the title that its fence gives, for a file of the reader's; else empty.
        text: the code.
    """

    page: str
    line: int
    language: str
    file: str
    text: str

    @property
    def first(self) -> str:
        """The first line, by which a block is named."""
        return self.text.partition("\n")[0].strip()


def pages() -> list[str]:
    """List every page of the docs, and those beside them."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    return sorted(str(page.relative_to(ROOT)) for page in found)


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    for token in PARSER.parse((ROOT / page).read_text()):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            fenced = token.type == "fence"
            language = token.info.split()[0] if fenced and token.info else ""
            title = _TITLE.search(token.info)
            file = title[1] if title else ""
            yield Block(page, token.map[0] + 1 + fenced, language, file, token.content)


def python_blocks(page: str) -> list[Block]:
    """List the blocks of Python, fenced as such."""
    return [block for block in blocks_of(page) if block.language == "python"]
