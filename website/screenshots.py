"""Photograph pages of reports and profiles for the docs.

`make docs-images` builds the models of `website.shown`, writes their pages into a folder, and takes
the pictures of `SHOTS` into `docs/img`. Pages that are in the folder already are not made again.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

IMAGES = Path(__file__).parents[1] / "docs/img"
MODELS = ("minilm", "llama", "experts", "unet")

WIDE = {"width": 1040, "height": 900}
PHONE = {"width": 390, "height": 800}
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

COLOURS = 96
MOST_BYTES = 150_000


class Shot(NamedTuple):
    """A picture of a part of a page.

    Attributes:
        name: of the picture.
        page: the model, and whether it is its report or its profile.
        first, last: ids of the sections that it shows, with what is between them; empty for what is
            seen of the page when it is opened.
        opened: a selector of what is unfolded.
        scheme: light or dark.
        size: of the window.
    """

    name: str
    page: str
    first: str = ""
    last: str = ""
    opened: str = ""
    scheme: str = "light"
    size: dict[str, int] = WIDE


SHOTS = (
    Shot("report-summary", "minilm.report", "", "timeline"),
    Shot("report-piece", "minilm.report", "kind-B", "kind-B", "#kind-B", "dark"),
    Shot("report-llama", "llama.report", "model", "timeline"),
    Shot("report-experts", "experts.report", "warnings", "timeline"),
    Shot("report-unet", "unet.report", "warnings", "timeline", scheme="dark"),
    Shot("report-phone", "minilm.report", size=PHONE),
    Shot("profile-summary", "minilm.profile", "", "order"),
    Shot("profile-pieces", "minilm.profile", "pieces", "pieces", "#part-B", "dark"),
    Shot("profile-llama", "llama.profile", "summary", "order"),
    Shot("profile-experts", "experts.profile", "summary", "order"),
    Shot("profile-unet", "unet.profile", "summary", "order", scheme="dark"),
    Shot("profile-phone", "minilm.profile", size=PHONE),
)


def main(folder: Path) -> None:
    """Make the pages that are missing in a folder, and photograph them all."""
    from playwright.sync_api import sync_playwright  # of `make test-browser`

    folder.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        for command in commands(model, folder):
            if not Path(command[-1]).exists():
                print(" ".join(command), flush=True)
                subprocess.run([sys.executable, "-m", "hotstart", *command], check=True)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        for shot in SHOTS:
            taken = reduced(photograph(browser, folder / f"{shot.page}.html", shot))
            if len(taken) > MOST_BYTES:
                raise ValueError(f"{shot.name} has {len(taken)} bytes, more than {MOST_BYTES}")
            (IMAGES / f"{shot.name}.png").write_bytes(taken)
        browser.close()


def commands(model: str, folder: Path) -> Iterator[list[str]]:
    """The commands that make the pages of a model; the last word of each is the file it writes."""
    file, factory = str(folder / f"{model}.hot"), f"website.shown:{model}"
    yield ["build", factory, "-o", file]
    yield ["report", file, "--html", str(folder / f"{model}.report.html")]
    yield ["profile", file, "--factory", factory, "--html", str(folder / f"{model}.profile.html")]


def photograph(browser: Any, file: Path, shot: Shot) -> bytes:
    """Take a picture, as PNG."""
    context = browser.new_context(color_scheme=shot.scheme, viewport=shot.size)
    page = context.new_page()
    page.goto(file.absolute().as_uri())
    if shot.opened:
        page.evaluate("s => document.querySelectorAll(s).forEach(e => e.open = true)", shot.opened)
    taken = page.screenshot(full_page=bool(shot.last), **clip_of(page, shot))
    context.close()
    return taken


def clip_of(page: Any, shot: Shot) -> dict[str, Any]:
    """The part of a page that a picture shows; empty for what is seen of it."""
    if not shot.last:
        return {}
    ends = page.evaluate(
        """([first, last]) => {
            const edge = (id) => document.getElementById(id).getBoundingClientRect();
            return [first ? edge(first).top + scrollY : 0, edge(last).bottom + scrollY];
        }""",
        [shot.first, shot.last],
    )
    top, bottom = ends
    return {"clip": {"x": 0, "y": top, "width": shot.size["width"], "height": bottom - top}}


def reduced(png: bytes) -> bytes:
    """The same picture in fewer colours."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/pages"))
