"""`hotstart observe`: run a script, and write how it calls a module."""

from __future__ import annotations

import contextlib
import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from hotstart.cli.output import require_place, say
from hotstart.cli.script import Watched, main_module, run
from hotstart.errors import OptionsError
from hotstart.observing.observed import ObservedCalls


def add_observe(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart observe`."""
    add = command.add_argument
    add("script", type=Path, metavar="SCRIPT", help="a Python script, run as by python")
    add(
        "--module",
        action="append",
        required=True,
        metavar="PATH",
        help="a variable of the script that holds a module or method, and attributes from it, such "
        "as model.encoder; give it again for several",
    )
    add(
        "--arguments",
        type=shlex.split,
        default=[],
        metavar="TEXT",
        help="the script's own arguments: --arguments='--port 8000'",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="write the calls here")
    command.set_defaults(run=_observe)


def _observe(given: Namespace) -> None:
    """Run the script; write what was seen, however it ends, and show it on stdout.

    Raises:
        HotstartError: there is no such script, module or place for the output.
        Exception: what the script raises.
    """
    require_place(given.output, "run")
    with main_module(given.script, given.arguments) as names, contextlib.ExitStack() as stack:
        watched = Watched(given.module, stack)
        try:
            run(given.script, names, watched)
        except SystemExit as end:
            _write(watched, given.output)
            if end.code not in (None, 0):
                raise
        except BaseException:
            with contextlib.suppress(OptionsError):  # what the script raised says more
                _write(watched, given.output)
            raise
        else:
            _write(watched, given.output)


def _write(watched: Watched, output: Path) -> None:
    calls = ObservedCalls(watched.seen())
    calls.save(output)
    say(str(calls))
    say(f"wrote {output}, {len(calls)} calls", sys.stderr)
