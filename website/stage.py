"""Lay out the pages of the site in `build/docs`.

`docs/` is copied as it is. README, SECURITY, CONTRIBUTING and CHANGELOG become pages, every example
a page with its source, and `docs/adr` gets a list. Links lead to the pages.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from website.links import DeadLink, staged

ROOT = Path(__file__).parents[1]
STAGED = ROOT / "build/docs"
ASSETS = ROOT / "website/assets"

_PAGES = {
    "README.md": "project/readme.md",
    "SECURITY.md": "project/security.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "benchmarks": "project/benchmarks.md",
    "docs/adr": "adr/decisions.md",
    "docs/howto": "howto/index.md",
    "website/plots.py": "plots.md",
}
"""Files and folders of the repository that have a page elsewhere than under their own name."""

_LANGUAGES = {".py": "python", ".c": "c", ".json": "json"}


def main() -> None:
    """Stage every page, and then draw the plots."""
    from website import plots  # which tests of links do without

    shutil.rmtree(STAGED, ignore_errors=True)
    for source in sources():
        stage(source)
    (STAGED / "adr/decisions.md").write_text(decisions(ROOT / "docs/adr"))
    for example in examples():
        target = STAGED / place(example)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(example_page(ROOT / example))
    (STAGED / "examples/list.md").write_text(example_list())
    shutil.copytree(ASSETS, STAGED / "assets")
    for source in plots.SOURCES:
        attached(source)
    for page, text in plots.main(STAGED / "img").items():
        with (STAGED / page).open("a") as file:
            file.write(text)


def sources() -> Iterator[str]:
    """Yield the files that are staged as they are, but for their links."""
    yield from (name for name in _PAGES if name.endswith(".md"))
    for file in sorted((ROOT / "docs").rglob("*")):
        if file.is_file():
            yield str(file.relative_to(ROOT))


def examples() -> list[str]:
    """List the files of examples that have pages."""
    return [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "examples").iterdir())
        if file.is_file()
    ]


def stage(source: str) -> None:
    """Copy a file to its place; in a page links are those of the site."""
    page = place(source)
    target = STAGED / page
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.endswith(".md"):
        try:
            target.write_text(staged((ROOT / source).read_text(), source, page, place))
        except DeadLink as error:
            raise DeadLink(f"{source}: {error}") from None
    else:
        shutil.copyfile(ROOT / source, target)


def place(source: str) -> str:
    """Say where on the site a file of the repository is.

    Args:
        source: a path from the root of the repository.

    Returns:
        A path from the root of the site.

    Raises:
        DeadLink: there is no such file, or no page for it.
    """
    if not (ROOT / source).exists():
        raise DeadLink(f"expected a file of the repository, found none: {source}")
    if source in _PAGES:
        return _PAGES[source]
    folder, _, name = source.partition("/")
    if folder == "docs":
        return name
    if source == "examples":
        return "examples/list.md"
    if folder == "examples" and "/" not in name and (ROOT / source).is_file():
        return f"examples/{name.replace('.', '_').lower()}.md"
    if (ROOT / source).is_dir():
        raise DeadLink(f"expected a file or a folder with a page, found the folder {source}")
    return attached(source)


def attached(source: str) -> str:
    """Put a file beside the pages, and say where; code as text, which browsers show."""
    target = STAGED / "files" / (f"{source}.txt" if source.endswith(".py") else source)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / source, target)
    return str(target.relative_to(STAGED))


def decisions(folder: Path) -> str:
    """Write the list of decisions, by number and title."""
    rows = []
    for file in sorted(folder.glob("*.md")):
        title = file.read_text().partition("\n")[0].lstrip("# ")
        rows.append(f"- [{title}]({file.name})")
    text = (
        "# Decisions\n\nWhy the code is as it is, one decision a page, in the order they were made."
    )
    return f"{text}\n\n{chr(10).join(rows)}\n"


def example_page(file: Path) -> str:
    """Write a page with what an example says of itself, and its source."""
    source = file.read_text()
    language = _LANGUAGES.get(file.suffix, "docker" if file.stem == "Containerfile" else "text")
    return f"# {file.name}\n\n```{language}\n{source}```\n"


def example_list() -> str:
    """Write the list of examples, with the first line of each."""
    lines = []
    for example in examples():
        file = ROOT / example
        text = file.read_text()
        about = (
            (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
            if file.suffix == ".py"
            else text.strip("/*# \n").partition("\n")[0]
        )
        lines.append(f"- [{file.name}]({Path(place(example)).name}): {about}")
    head = "# Examples\n\nEvery one is a program that the tests run."
    return f"{head}\n\n{chr(10).join(lines)}\n"


if __name__ == "__main__":
    try:
        main()
    except DeadLink as error:
        sys.exit(f"error: {error}")
