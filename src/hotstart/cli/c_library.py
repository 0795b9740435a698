"""`hotstart c-library`: the header and the library that C programs are compiled with."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from hotstart.c.library import build_library
from hotstart.cli import flags
from hotstart.cli.output import tell


def add_c_library(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart c-library`."""
    command.add_argument("folder", type=Path, metavar="DIR", help="where to write them")
    flags.add_json(command)
    command.set_defaults(run=_c_library)


def _c_library(given: Namespace) -> None:
    """Build the library.

    Raises:
        OptionsError: there is no compiler of C++.
        ArtifactError: as `build_library`.
    """
    header, library = build_library(given.folder)
    paths = shlex.join([f"-I{given.folder}", f"-L{given.folder}"])
    tell(
        given,
        {"ok": True, "header": str(header), "library": str(library)},
        f"wrote {header} and {library}",
        f"compile with: cc serve.c {paths} -lhotstart",
    )
