"""Make the site open from disk and without a network, and see that it does."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SITE = Path(__file__).parents[1] / "site"
_SHIM = "https://unpkg.com/iframe-worker/shim"
"""The theme loads this where a site is to be read offline, from a network."""
_OWN = "assets/file-worker.js"
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//[^"]*"|<link\b[^>]*\bhref="(?:https?:)?//[^"]*\""""
)


def main() -> int:
    """Change every page, and return 1 if one still asks for something elsewhere."""
    for page in pages():
        own = os.path.relpath(SITE / _OWN, page.parent)
        page.write_text(page.read_text().replace(_SHIM, own))
    found = list(elsewhere())
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


def pages() -> Iterator[Path]:
    """Yield the pages of the site."""
    return SITE.rglob("*.html")


def elsewhere() -> Iterator[str]:
    """Yield what pages fetch from elsewhere when they are opened; links may lead there."""
    for page in pages():
        for tag in _FETCHED.findall(page.read_text()):
            yield f"{page.relative_to(SITE)}: expected files of the site alone, found {tag}"


if __name__ == "__main__":
    sys.exit(main())
