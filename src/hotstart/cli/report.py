"""`hotstart report`: show how a program was made and what is in it, or how two differ."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from hotstart.artifact import disk
from hotstart.cli import flags
from hotstart.cli.output import require_place, say, say_json, write_page
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
    asked = [f"--{name}" for name in ("html", "trace", "json") if getattr(given, name)]
    if len(asked) > 1:
        given.parser.error(f"{' and '.join(asked)}: takes one of them")
    if given.other is not None and asked not in ([], ["--json"]):
        given.parser.error(f"{asked[0]} is for one report; two are compared as text or --json")
    document = read_document(given.file, given.target)
    if given.html is not None:
        from hotstart.reporting.page import page_of

        require_place(given.html, "written")
        write_page(given.html, page_of(document, given.file.name))
    elif given.trace is not None:
        require_place(given.trace, "written")
        disk.write(given.trace, [trace_of(document)])
        say(f"wrote {given.trace}", sys.stderr)
    elif given.other is not None:
        found = compare(document, read_document(given.other, given.target))
        say_json(found) if given.json else say(differences_text(found))
    elif given.json:
        say_json(document)
    else:
        say(document_text(document))
