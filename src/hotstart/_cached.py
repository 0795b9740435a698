"""`hotstart.compile` with a cache: found if it was compiled before, else compiled and kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hotstart.errors import ArtifactError, StoreError
from hotstart.keys.explain import explain
from hotstart.keys.program import here
from hotstart.keys.records import Key, Seen, described
from hotstart.options import CachePolicy, MissPolicy
from hotstart.runtime.program import Program
from hotstart.store.entries import Entry
from hotstart.store.programs import Found, Store
from hotstart.tensors import Model

if TYPE_CHECKING:
    from hotstart._units import Kept
    from hotstart.store.pieces import Pieces

log = logging.getLogger("hotstart")

Build = Callable[["Kept"], tuple[Program, tuple[Seen, ...]]]
"""Builds a program, given the pieces of earlier builds; also what it was compiled for besides."""

Find = Callable[[Key, Model, MissPolicy], Found]


def find_or_build(
    store: Store, key: Key, model: Model, build: Build, policy: CachePolicy, on_miss: MissPolicy
) -> Program:
    """The program of a key: from a store, or built and then kept there.

    Processes that want the same program wait for the one that builds it.

    Raises:
        StoreError: it is not there, and `policy` is `"require"`.
        HotstartError: see `hotstart.compile`.
    """
    found = _timed(store.find, key, model, on_miss)
    if found.program is not None:
        return found.program
    why = _why(store, key, found)
    if policy == "require":
        raise StoreError(
            f"expected a compiled program in {store}, found none that fits:\n{why}\n"
            "Compile it there first, with cache_policy='build', or change what is listed back."
        )
    log.info("cache miss for %s: %s", key.digest, why)
    with store.alone(key):
        again = _timed(store.find_here, key, model, on_miss)  # another process may have built it
        if again.program is not None:
            return again.program
        pieces = _pieces(store)
        program, seen = build(pieces)
        entry = _keep(store, key, program, seen)
    store.share(entry, pieces.new)
    return program


def _why(store: Store, key: Key, found: Found) -> str:
    problems = () if store.exchange is None else store.exchange.remote.problems
    told = (f"the remote: {problem}" for problem in problems)
    return "\n".join([explain(store, key, found.reasons), *told])


def _timed(find: Find, key: Key, model: Model, on_miss: MissPolicy) -> Found:
    started = time.perf_counter()
    found = find(key, model, on_miss)
    if found.program is not None:
        log.info("cache hit for %s in %.1f ms", key.digest, 1e3 * (time.perf_counter() - started))
    return found


def _pieces(store: Store) -> Pieces:
    from hotstart.store.pieces import Pieces  # only a build needs it

    return Pieces(store.folder, here(), store.exchange)


def _keep(store: Store, key: Key, program: Program, seen: tuple[Seen, ...]) -> Entry | None:
    from hotstart.packaging import Check, packed

    unknown = [described(one) for one in seen if not one.guard.text]
    if unknown:
        log.warning("the program cannot be kept: nothing can be said of %s", ", ".join(unknown))
        return None
    check = Check(program.model, program.examples, partly=True) if store.check else None
    try:
        parts = packed(program.artifact, check=check)
    except (ArtifactError, OSError) as error:  # OSError: there is no room to check it in
        log.warning("the program was compiled, and cannot be kept: %s", error)
        return None
    name = type(program.model).__qualname__
    return store.keep(key, parts, seen, name)
