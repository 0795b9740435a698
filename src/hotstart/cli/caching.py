"""`hotstart explain`, `warm` and `cache push | pull`: what a cache has, and filling it."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

import hotstart
from hotstart.cli.build import Model, arguments, call_factory, listening
from hotstart.cli.cache import named
from hotstart.cli.output import say, say_json
from hotstart.cli.progress import progress
from hotstart.errors import HotstartError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from hotstart.cache.entries import CacheEntry
    from hotstart.cli.parse import Factory
    from hotstart.cli.requests import CacheRequest, ExplainRequest, WarmRequest

MISSING = 6
"""The exit status where nothing that is stored fits."""

_KEY_LETTERS = 32


def explain(request: ExplainRequest) -> int:
    """Say whether `hotstart.compile(cache=...)` would find what a factory makes, and why not.

    Raises:
        HotstartError: the factory is not one, or the cache cannot be read.
    """
    from hotstart.cache.explain import listed, why
    from hotstart.program import OnMiss

    model, settings = call_factory(request.factory)
    settings = arguments(request, settings)
    key = hotstart.compute_key(model, **settings)
    store = _store(request.folder, request.remote)
    found = store.find(key, model, OnMiss())
    fits = found.program is not None
    beside, changes = ("", ()) if fits else why(store, key, found.reasons)
    if request.json:
        parts = [dict(zip(("part", "was", "is"), change, strict=True)) for change in changes]
        say_json({"found": fits, "key": key.digest, "beside": beside, "changes": parts})
    elif fits:
        say(f"found: {key.digest}")
    else:
        say(f"not found: {key.digest}: {listed(beside, changes) if changes else beside}")
    return 0 if fits else MISSING


def warm(request: WarmRequest) -> int:
    """Compile what factories make into a cache, each as far as it is not there yet.

    Each has a process of its own, as where it is served: a library may put methods into torch's
    classes when a model of its is made, and they are part of every key from then on.

    Returns:
        1 if one of them failed; the others are compiled nevertheless.
    """
    done = [_warmed(factory, request) for factory in request.factories]
    if request.json:
        say_json(done)
    return 1 if any(one["error"] for one in done) else 0


def _warmed(factory: Factory, request: WarmRequest) -> dict[str, Any]:
    """What became of a factory."""
    started = time.perf_counter()
    action, seconds, key, error = "failed", 0.0, "", ""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh) as process:
        try:
            action, seconds, key = process.submit(_warm, factory, request).result()
        except HotstartError as raised:
            error = str(raised)
        except Exception as raised:  # noqa: BLE001  whatever a factory does, the others go on
            error = f"{type(raised).__name__}: {raised}"
    seconds = seconds or time.perf_counter() - started
    if error:
        say(f"error: {factory}: {error}", sys.stderr)
    if not request.json:
        say(f"{action:8}  {seconds:7.2f} s  {key[:12]:12}  {factory}")
    return {"factory": str(factory), "action": action, "seconds": seconds, "key": key,
            "error": error}  # fmt: skip


def _warm(factory: Factory, request: WarmRequest) -> tuple[str, float, str]:
    """What was done, in how many seconds once there was a model, and under which key it is kept.

    Raises:
        HotstartError: it cannot be compiled, or not be kept.
    """
    model, settings = call_factory(factory)
    settings = arguments(request, settings)
    key = hotstart.compute_key(model, **settings).digest
    extra_key = settings.pop("extra_key", "")
    store = _store(request.folder, request.remote, check=request.check, extra_key=extra_key)
    started = time.perf_counter()
    action = _compile(model, settings, request.jobs, store)
    seconds = time.perf_counter() - started
    if not store.probe(key):
        raise StoreError(
            f"expected the program of {factory} in {store}, found that it cannot be kept. "
            "The warning above says why."
        )
    return action, seconds, key


def _compile(
    model: Model, settings: dict[str, Any], jobs: int | None, store: hotstart.Store
) -> str:
    with progress(sys.stderr) as listener:
        program = hotstart.compile(model, **listening(settings, jobs, listener), cache=store)
    actions = {unit.action for unit in program.report.units}
    return "compiled" if "compiled" in actions else "loaded"


def exchange(request: CacheRequest) -> None:
    """Publish programs of a cache at a remote, or bring some from there: all, or those of a key.

    Where all are published, so are all pieces.

    Raises:
        StoreError: there is no such key, or the cache or the remote does not do it.
    """
    store = _store(request.folder, request.remote)
    entries = _pushed(store, request.key) if request.action == "push" else _pulled(store, request)
    pieces = store.push_pieces() if request.action == "push" and not request.key else 0
    if request.json:
        shown = [msgspec.to_builtins(entry) for entry in entries]
        say_json({"ok": True, "programs": shown, "pieces": pieces})
    else:
        done = "published" if request.action == "push" else "brought"
        say(f"{done} {len(entries)} programs" + (f" and {pieces} pieces" if pieces else ""))


def _pushed(store: hotstart.Store, key: str) -> list[CacheEntry]:
    entries = named(store.entries, key) if key else store.entries.all()
    return [entry for entry in entries if store.push(entry)]


def _pulled(store: hotstart.Store, request: CacheRequest) -> list[CacheEntry]:
    whole = len(request.key) == _KEY_LETTERS
    keys = [request.key] if whole else store.shared_keys(request.key)
    return [entry for key in keys for entry in store.pull(key)]


def _store(folder: Path | None, remote: str | None, **settings: Any) -> hotstart.Store:
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    return hotstart.Store(folder, strict=True, remote=remote, **settings)
