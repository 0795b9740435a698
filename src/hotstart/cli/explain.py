"""`hotstart explain`: whether a cache has a program for what a factory makes, and why not."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import hotstart
from hotstart.cli import flags
from hotstart.cli.factory import call_factory
from hotstart.cli.output import tell

MISSING = 6
"""The exit status where nothing that is stored fits."""


def add_explain(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart explain`."""
    flags.add_factory(command)
    flags.add_compiling(command)
    flags.add_cache(command)
    flags.add_remote(command)
    flags.add_trusted(command)
    flags.add_json(command)
    command.epilog = f"{flags.FACTORY}{command.epilog}"
    command.set_defaults(run=_explain)


def _explain(given: Namespace) -> int:
    """Say whether `hotstart.compile(cache=...)` would find what a factory makes, and why not.

    Raises:
        HotstartError: the factory is not one, or the cache cannot be read.
    """
    from hotstart.cache.explain import listed, why
    from hotstart.program import OnMiss

    settings = flags.settings(given)
    model, from_factory = call_factory(given.factory)
    key = hotstart.compute_key(model, **{**settings, **from_factory})
    store = flags.store(given.cache, given.remote, trusted_keys=given.trusted_key)
    found = store.find(key, model, OnMiss())
    fits = found.program is not None
    beside, changes = ("", ()) if fits else why(store, key, found.reasons)
    parts = [dict(zip(("part", "was", "is"), change, strict=True)) for change in changes]
    text = listed(beside, changes) if changes else beside
    tell(
        given,
        {"found": fits, "key": key.digest, "beside": beside, "changes": parts},
        f"found: {key.digest}" if fits else f"not found: {key.digest}: {text}",
    )
    return 0 if fits else MISSING
