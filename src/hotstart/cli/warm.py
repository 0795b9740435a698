"""`hotstart warm`: compile what factories make into a cache."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from hotstart.cli import flags, parse
from hotstart.cli.factory import call_factory
from hotstart.cli.output import say, say_json
from hotstart.cli.progress import progress
from hotstart.cli.warming import Place, Row, compile_into, compiled_row, failed_row
from hotstart.errors import HotstartError
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
    if given.on == "ray":
        from hotstart.cli.warm_on_ray import warm_on_ray

        rows = warm_on_ray(given.factories, settings, given.jobs, place)
    else:
        rows = _warm_here(given.factories, settings, given.jobs, place)
    done, out = [], sys.stdout
    with contextlib.closing(rows):  # what still runs is ended if this is interrupted
        for one in rows:
            if one["error"]:
                say(f"error: {one['factory']}: {one['error']}", sys.stderr)
            if not given.json:
                seconds, key = one["seconds"], one["key"][:12]
                say(f"{one['action']:8}  {seconds:7.2f} s  {key:12}  {one['factory']}", out)
            done.append(one)
    if given.json:
        order = list(map(str, given.factories))
        say_json(sorted(done, key=lambda one: order.index(one["factory"])))
    return 1 if any(one["error"] for one in done) else 0


def _warm_here(
    factories: list[parse.Factory], settings: dict[str, Any], jobs: Jobs | None, place: Place
) -> Generator[Row]:
    """Compile what each factory makes, one after the other."""
    for factory in factories:
        yield _warm_apart(factory, settings, jobs, place)


def _warm_apart(
    factory: parse.Factory, settings: dict[str, Any], jobs: Jobs | None, place: Place
) -> Row:
    """Compile what one factory makes in a new process, and describe what came of it."""
    started = time.perf_counter()
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh) as process:
        try:
            compiled = process.submit(_compile, factory, settings, jobs, place)
            action, seconds, key = compiled.result()
        except HotstartError as raised:
            return failed_row(factory, time.perf_counter() - started, str(raised))
        except Exception as raised:  # noqa: BLE001  whatever a factory does, the others go on
            error = f"{type(raised).__name__}: {raised}"
            return failed_row(factory, time.perf_counter() - started, error)
    return compiled_row(factory, action, seconds, key)


def _compile(
    factory: parse.Factory, settings: dict[str, Any], jobs: Jobs | None, place: Place
) -> tuple[str, float, str]:
    """Compile what a factory makes into a cache; see `compile_into`."""
    model, from_factory = call_factory(factory)
    with progress(sys.stderr) as listener:
        return compile_into(factory, model, {**settings, **from_factory}, jobs, place, listener)
