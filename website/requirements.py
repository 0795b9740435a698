"""Print what the site is made with: the extra `docs`, without the project and so without torch."""

from __future__ import annotations

import tomllib
from pathlib import Path


def main() -> None:
    """Print one requirement a line, as pip reads them."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    print(*project["project"]["optional-dependencies"]["docs"], sep="\n")


if __name__ == "__main__":
    main()
