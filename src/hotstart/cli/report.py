"""`hotstart report`: show how a program was made and what is in it, or how two differ."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from hotstart.artifact import disk
from hotstart.cli import flags
from hotstart.cli.output import require_place, say, tell, write_page
from hotstart.reporting.compare import compare, differences_text
from hotstart.reporting.document import read_document
from hotstart.reporting.text import document_text
from hotstart.reporting.trace import trace_of
from hotstart.targets import TargetName


def add_report(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart report`."""
    add = command.add_argument
    add("file", type=Path, metavar="FILE", help="an artifact, or a report that a build wrote")
    add("other", type=Path, nargs="?", metavar="OTHER", help="another one, to say what differs")
    flags.add_html(command)
    add(
        "--trace",
        type=Path,
        metavar="TRACE",
        help="write what was done when, for chrome://tracing or Perfetto",
    )
    add(
        "--target",
        choices=get_args(TargetName),
        help="the target to show of a file with several; by default the one that a load takes here",
    )
    flags.add_json(command, "document, or the differences,")
    command.set_defaults(run=_report, parser=command)


def _report(given: Namespace) -> None:
    """Print or write what was asked for.

    Raises:
        ArtifactError: as `read_document`, or the page cannot be written.
        OptionsError: a page is asked for, and a package for it is not installed.
    """
    files = [place for place in (given.html, given.trace) if place is not None]
    if given.other is not None:
        if files:
            given.parser.error("a page or trace is of one report; two are compared as text or JSON")
        _compare(given)
        return
    for place in files:
        require_place(place, "written")
    document = read_document(given.file, given.target)
    if given.html is not None:
        from hotstart.reporting.page import page_of

        write_page(given.html, page_of(document, given.file.name))
    if given.trace is not None:
        disk.write(given.trace, [trace_of(document)])
        say(f"wrote {given.trace}", sys.stderr)
    if given.json or not files:
        tell(given, document, document_text(document))


def _compare(given: Namespace) -> None:
    """Print what differs between two reports."""
    one, other = (read_document(file, given.target) for file in (given.file, given.other))
    found = compare(one, other)
    tell(given, found, differences_text(found))
