"""`hotstart.compile` with a cache: found if it was compiled before, else compiled and kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hotstart.errors import ArtifactError, StoreError
from hotstart.keys.explain import explain
from hotstart.keys.program import here
from hotstart.keys.records import Key, Seen
from hotstart.options import CachePolicy, MissPolicy
from hotstart.runtime.program import Program
from hotstart.store.programs import Found, Store
from hotstart.tensors import Model

if TYPE_CHECKING:
    from hotstart.store.pieces import Pieces

log = logging.getLogger("hotstart")

Build = Callable[["Pieces"], tuple[Program, tuple[Seen, ...]]]
"""Builds a program, given the pieces of earlier builds; also what it was compiled for besides."""


def find_or_build(
    store: Store, key: Key, model: Model, build: Build, policy: CachePolicy, on_miss: MissPolicy
) -> Program:
    """The program of a key: from a store, or built and then kept there.

    Processes that want the same program wait for the one that builds it.

    Raises:
        StoreError: it is not there, and `policy` is `"require"`.
        HotstartError: see `hotstart.compile`.
    """
    found = _found(store, key, model, on_miss)
    if found.program is not None:
        return found.program
    why = explain(store, key, found.reasons)
    if policy == "require":
        raise StoreError(
            f"expected a compiled program in {store}, found none that fits:\n{why}\n"
            "Compile it there first, with cache_policy='build', or change what is listed back."
        )
    log.info("cache miss for %s: %s", key.digest, why)
    with store.alone(key):
        again = _found(store, key, model, on_miss)  # another process may have built it meanwhile
        if again.program is not None:
            return again.program
        program, seen = build(_pieces(store))
        _keep(store, key, program, seen)
    return program


def _found(store: Store, key: Key, model: Model, on_miss: MissPolicy) -> Found:
    started = time.perf_counter()
    found = store.find(key, model, on_miss)
    if found.program is not None:
        log.info("cache hit for %s in %.1f ms", key.digest, 1e3 * (time.perf_counter() - started))
    return found


def _pieces(store: Store) -> Pieces:
    from hotstart.store.pieces import Pieces  # only a build needs it

    return Pieces(store.folder, here())


def _keep(store: Store, key: Key, program: Program, seen: tuple[Seen, ...]) -> None:
    from hotstart.packaging import packed

    unknown = [f"{one.name} {one.steps}" for one in seen if not one.text]
    if unknown:
        log.warning("the program cannot be kept: nothing can be said of %s", ", ".join(unknown))
        return
    try:
        parts = packed(program.artifact, sign_key=None, check=store.check)
    except (ArtifactError, OSError) as error:  # OSError: there is no room to check it in
        log.warning("the program was compiled, and cannot be kept: %s", error)
        return
    name = type(program.model).__qualname__
    store.keep(key, parts, seen, name)
