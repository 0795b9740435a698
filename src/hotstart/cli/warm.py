"""`hotstart warm`: compile what factories make into a cache."""

from __future__ import annotations

import contextlib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Sequence
from functools import partial

from hotstart.cli import flags, parse
from hotstart.cli.output import say, say_json
from hotstart.cli.warm_apart import warm_apart
from hotstart.cli.warm_progress import Shown, models_shown
from hotstart.cli.warming import Place, Row
from hotstart.options import Jobs


def add_warm(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart warm`."""
    command.add_argument(
        "factories",
        nargs="+",
        type=parse.factory,
        metavar="PACKAGE.MODULE:FUNCTION",
        help="functions that return a model and its example calls",
    )
    command.add_argument(
        "--on",
        choices=["ray"],
        help="compile on the machines of a Ray cluster, several factories at a time",
    )
    flags.add_no_check(command)
    flags.add_compiling(command)
    flags.add_cache(command)
    flags.add_remote(command)
    flags.add_sign(command, "all that is kept")
    flags.add_trusted(command)
    flags.add_json(command)
    command.epilog = f"{flags.FACTORY}{command.epilog}"
    command.set_defaults(run=_warm)


def _warm(given: Namespace) -> int:
    """Compile what factories make into a cache, as far as it is not there yet.

    Each factory runs in a process of its own, as where its model is served: a library may
    patch torch's classes when it makes a model, and what it puts there is part of later keys.

    Returns:
        1 if one of them failed; the others are compiled nevertheless.
    """
    settings = flags.settings(given)
    place = Place(given.cache, given.remote, not given.no_check, given.sign_key, given.trusted_key)
    names = list(map(str, given.factories))
    with models_shown(names, sys.stderr, quiet=given.json) as shown:
        if given.on == "ray":
            from hotstart.cli.warm_on_ray import warm_on_ray

            rows = warm_on_ray(given.factories, settings, given.jobs, place, shown)
        else:
            rows = _warm_here(given.factories, settings, given.jobs, place, shown)
        done = _told(rows, names, shown, quiet=given.json)
    if given.json:
        say_json(sorted(done, key=lambda one: names.index(one["factory"])))
    return 1 if any(one["error"] for one in done) else 0


def _told(rows: Generator[Row], names: Sequence[str], shown: Shown, quiet: bool) -> list[Row]:
    """Print a line for each row as it comes, and errors; return all rows."""
    done, left, out = [], list(enumerate(names)), sys.stdout
    with contextlib.closing(rows):  # what still runs is ended if this is interrupted
        for row in rows:
            place, name = next(one for one in left if one[1] == row["factory"])
            left.remove((place, name))
            with shown.ended(place):
                if row["error"]:
                    say(f"error: {name}: {row['error']}", sys.stderr)
                if not quiet:
                    seconds, key = row["seconds"], row["key"][:12]
                    say(f"{row['action']:8}  {seconds:7.2f} s  {key:12}  {name}", out)
            done.append(row)
    return done


def _warm_here(
    factories: Sequence[parse.Factory],
    settings: flags.Settings,
    jobs: Jobs | None,
    place: Place,
    shown: Shown,
) -> Generator[Row]:
    """Compile what each factory makes, one after the other."""
    for number, factory in enumerate(factories):
        shown.begun(number)
        yield warm_apart(factory, settings, jobs, place, partial(shown.heard, number))
