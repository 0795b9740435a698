"""`hotstart repro`: run one piece of a debug folder against eager mode."""

from __future__ import annotations

import runpy
from argparse import ArgumentParser, Namespace
from pathlib import Path

from hotstart.errors import OptionsError

_SCRIPT = "repro.py"

_NAMED = 8
"""Pieces that an error names."""


def add_repro(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart repro`."""
    command.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="the folder of a piece, as --debug-dir has it",
    )
    command.set_defaults(run=_repro)


def _repro(given: Namespace) -> None:
    """Run the script of a piece, which exits with its own status.

    Raises:
        OptionsError: there is none.
        SystemExit: 0 if the piece gives what it gives in eager mode, else 1.
    """
    script = given.folder / _SCRIPT
    if not script.is_file():
        places = (given.folder, given.folder / "hotstart", given.folder.parent)
        found = sorted({path.parent for place in places for path in place.glob(f"*/{_SCRIPT}")})
        there = f" Take one of these: {', '.join(map(str, found[:_NAMED]))}." if found else ""
        raise OptionsError(
            f"{given.folder}: expected the folder of a piece, with the {_SCRIPT} that a build with "
            f"--debug-dir writes, found none.{there} A piece with an operator that no source says "
            "has no script."
        )
    runpy.run_path(str(script), run_name="__main__")
