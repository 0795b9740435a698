"""`hotstart bisect`: the first piece whose outputs depart from eager mode's."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from hotstart.cli import flags
from hotstart.cli.factory import call_factory
from hotstart.cli.output import tell
from hotstart.cli.progress import progress
from hotstart.errors import OptionsError

DEPARTS = 1
"""The exit status where something departs."""


def add_bisect(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart bisect`."""
    add = command.add_argument
    flags.add_factory(command)
    flags.add_compiling(command)
    add("--file", type=Path, metavar="FILE", help="an artifact of this model to look into")
    add(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="difference that is allowed, as a share of the largest number; by dtype if left out",
    )
    flags.add_json(command)
    command.epilog = f"{flags.FACTORY}{command.epilog}"
    command.set_defaults(run=_bisect)


def _bisect(given: Namespace) -> int:
    """Compare a program with eager mode, piece by piece, on the factory's example call.

    Raises:
        HotstartError: the factory is not one, or the model cannot be compiled.
    """
    from hotstart.api import load
    from hotstart.bisecting.bisect import bisect

    model, from_factory = call_factory(given.factory)
    arguments = flags.settings(given).beside(given.factory, from_factory)
    arguments.pop("extra_key", None)  # no cache is asked
    if "calls" in arguments:
        raise OptionsError(f"{given.factory}: got several calls, takes one: (model, args, kwargs)")
    program = None if given.file is None else load(given.file, model)
    with progress(sys.stderr, quiet=given.json) as listener:
        heard = flags.listening(arguments, given.jobs, listener)
        with flags.compiling_on(heard):
            found = bisect(model, **heard, program=program, tolerance=given.tolerance)
    tell(given, found.to_dict(), str(found))
    return DEPARTS if found.departs or found.captured_departs or found.first is not None else 0
