"""`hotstart warm`: compile what factories make into a cache."""

from __future__ import annotations

import multiprocessing
import sys
import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import hotstart
from hotstart.cli import flags, parse
from hotstart.cli.factory import call_factory
from hotstart.cli.output import say, say_json
from hotstart.cli.progress import progress
from hotstart.errors import HotstartError, StoreError


def add_warm(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart warm`."""
    command.add_argument(
        "factories",
        nargs="+",
        type=parse.factory,
        metavar="PACKAGE.MODULE:FUNCTION",
        help="functions that return a model and its example calls",
    )
    flags.add_no_check(command)
    flags.add_compiling(command)
    flags.add_cache(command)
    flags.add_remote(command)
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
    place = {"folder": given.cache, "remote": given.remote, "check": not given.no_check}
    done = []
    for factory in given.factories:
        one = _warm_apart(factory, settings, given.jobs, place)
        if one["error"]:
            say(f"error: {factory}: {one['error']}", sys.stderr)
        if not given.json:
            say(f"{one['action']:8}  {one['seconds']:7.2f} s  {one['key'][:12]:12}  {factory}")
        done.append(one)
    if given.json:
        say_json(done)
    return 1 if any(one["error"] for one in done) else 0


def _warm_apart(
    factory: parse.Factory, settings: dict[str, Any], jobs: int | None, place: dict[str, Any]
) -> dict[str, Any]:
    """Compile what one factory makes in a new process, and describe what came of it."""
    started = time.perf_counter()
    action, seconds, key, error = "failed", 0.0, "", ""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh) as process:
        try:
            compiled = process.submit(_compile, factory, settings, jobs, place)
            action, seconds, key = compiled.result()
        except HotstartError as raised:
            error = str(raised)
        except Exception as raised:  # noqa: BLE001  whatever a factory does, the others go on
            error = f"{type(raised).__name__}: {raised}"
    seconds = seconds or time.perf_counter() - started
    return {"factory": str(factory), "action": action, "seconds": seconds, "key": key,
            "error": error}  # fmt: skip


def _compile(
    factory: parse.Factory, settings: dict[str, Any], jobs: int | None, place: dict[str, Any]
) -> tuple[str, float, str]:
    """Compile what a factory makes into a cache.

    Args:
        factory: makes the model and its example calls.
        settings: arguments of `hotstart.compile`; those of the factory go before.
        jobs: how many C++ compilers run at a time; None: as the options say.
        place: arguments of `flags.store`.

    Returns:
        `"compiled"` or `"loaded"`, the seconds that took once there was a model, and the key.

    Raises:
        HotstartError: it cannot be compiled, or not be kept.
    """
    model, from_factory = call_factory(factory)
    arguments = {**settings, **from_factory}
    key = hotstart.compute_key(model, **arguments).digest
    store = flags.store(**place, extra_key=arguments.pop("extra_key", ""))
    started = time.perf_counter()
    with progress(sys.stderr) as listener:
        heard = flags.listening(arguments, jobs, listener)
        program = hotstart.compile(model, **heard, cache=store)
    seconds = time.perf_counter() - started
    if not store.probe(key):
        raise StoreError(
            f"expected the program of {factory} in {store}, found that it cannot be kept. "
            "The warning above says why."
        )
    actions = {unit.action for unit in program.report.units}
    return "compiled" if "compiled" in actions else "loaded", seconds, key
