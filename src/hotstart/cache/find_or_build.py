"""`hotstart.compile` with a cache: found if it was compiled before, else compiled and kept."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hotstart import telemetry
from hotstart.cache.entries import CacheEntry
from hotstart.cache.explain import why
from hotstart.cache.stale import FoundProgram
from hotstart.cache.store import Store
from hotstart.errors import ArtifactError, StoreError
from hotstart.events import Clock
from hotstart.misses import OnMiss
from hotstart.model import Model
from hotstart.program import Program
from hotstart.records.guards import ProgramKey, described
from hotstart.runtime.weights.model_weights import weights_of
from hotstart.targets import TargetName, is_foreign

if TYPE_CHECKING:
    from hotstart.specialize.piece_store import PieceStore

log = logging.getLogger("hotstart")

Build = Callable[["Mapping[TargetName, PieceStore]"], Program]
"""Builds a program, given the units of earlier builds by target."""


def find_or_build(
    store: Store,
    key: ProgramKey,
    model: Model,
    build: Build,
    on_miss: OnMiss,
    targets: Sequence[TargetName],
    clock: Clock,
) -> Program:
    """The program of a key: from a store, or built for some targets and then kept there.

    Processes that want the same program wait for the one that builds it. The clock is that of the
    build.

    Raises:
        StoreError: it is not there, and the store's policy is `"require"`.
        HotstartError: see `hotstart.compile`.
    """
    started = time.perf_counter()
    with clock.phase("find"):
        found = store.find(key, model, on_miss, clock)
    if found.program is not None:
        milliseconds = 1e3 * (time.perf_counter() - started)
        log.info("cache hit for %s in %.1f ms", key.digest, milliseconds)
        telemetry.count("hotstart.cache.lookups", outcome="hit")
        return found.program
    with clock.phase("find"):
        told = _why(store, key, found)
    reason = _reason(found)
    telemetry.count("hotstart.cache.lookups", outcome="miss", reason=reason)
    if store.policy == "require":
        raise StoreError(
            f"expected a compiled program in {store}, found none that fits:\n{told}\n"
            "Compile it there first, with policy='build', or change what is listed back."
        )
    log.info("cache miss for %s: %s", key.digest, told)
    with contextlib.ExitStack() as alone:
        with clock.phase("wait"):
            alone.enter_context(store.alone(key))
        with clock.phase("find"):
            again = store.find_here(key, model, on_miss, clock)
        if again.program is not None:
            log.info("cache hit for %s, which another process built meanwhile", key.digest)
            return again.program
        with clock.phase("import"):
            from hotstart.cache.stored_pieces import StoredPieces  # only a build needs it

        with clock.phase("find"):
            # Pieces for another architecture would be read, and refused, where they are compiled.
            kept = {t: StoredPieces(store, t) for t in targets if not is_foreign(t)}
        program = build(kept)
        with clock.phase("keep"):
            entry = _keep(store, key, program, clock)
    with clock.phase("keep"):
        for number, each in enumerate(kept.values()):
            each.share(entry if number == 0 else None)
    return program


def _reason(found: FoundProgram) -> str:
    """Why nothing was found, in one of a few words, for counters."""
    if not found.refused:
        return "no program of this key"
    changes = found.refused[0].changes
    part = changes[0][0] if changes else ""
    return part if part in ("its file", "its signature") else "something has changed"


def _why(store: Store, key: ProgramKey, found: FoundProgram) -> str:
    problems = () if store.exchange is None else store.exchange.remote.problems
    told = (f"the remote: {problem}" for problem in problems)
    return "\n".join([str(why(store, key, found.refused)), *told])


def _keep(store: Store, key: ProgramKey, program: Program, clock: Clock) -> CacheEntry | None:
    from hotstart.saving import CheckInputs, checked_parts

    if not store.signatures.believes_own:
        log.info("the program is not kept: %s trusts keys, and has none to sign with", store)
        return None
    seen = program.artifact.requirements.seen
    unknown = [described(one) for one in seen if not one.guard.text]
    if unknown:
        log.warning("the program cannot be kept: nothing can be said of %s", ", ".join(unknown))
        return None
    assert program.model is not None, "it was just built from one"
    source = weights_of(program.model, program.artifact)
    wanted = CheckInputs(source, program.examples, partly=True, listener=clock.emit)
    check = wanted if store.check else None
    try:
        parts = checked_parts(*program.artifacts(), sign=store.signatures.sign, check=check)
    except (ArtifactError, OSError) as error:  # OSError: there is no room to check it in
        log.warning("the program was compiled, and cannot be kept: %s", error)
        return None
    name = type(program.model).__qualname__
    return store.keep(key, parts, seen, name)
