"""`hotstart explain`: whether a cache has a program for what a factory makes, and why not."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

import hotstart
from hotstart.cli import flags
from hotstart.cli.factory import call_factory
from hotstart.cli.output import require_place, tell, write_page
from hotstart.reporting.rendering import require_packages

if TYPE_CHECKING:
    from hotstart.cache.explain import Miss
    from hotstart.cache.store import Store
    from hotstart.records.guards import ProgramKey

MISSING = 6
"""The exit status where nothing that is stored fits."""


def add_explain(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart explain`."""
    flags.add_factory(command)
    flags.add_compiling(command)
    flags.add_cache(command)
    flags.add_remote(command)
    flags.add_trusted(command)
    flags.add_html(command)
    flags.add_json(command)
    command.epilog = f"{flags.FACTORY}{command.epilog}"
    command.set_defaults(run=_explain)


def _explain(given: Namespace) -> int:
    """Say whether `hotstart.compile(cache=...)` would find what a factory makes, and why not.

    Raises:
        HotstartError: the factory is not one, or the cache cannot be read, or the page not be
            written.
    """
    from hotstart.cache.explain import why
    from hotstart.misses import OnMiss

    if given.html is not None:
        require_place(given.html, "looked up")
        require_packages()
    settings = flags.settings(given)
    model, from_factory = call_factory(given.factory)
    key = hotstart.compute_key(model, **settings.beside(given.factory, from_factory))
    store = flags.store(given.cache, given.remote, trusted_keys=given.trusted_key)
    found = store.find(key, model, OnMiss())
    miss = None if found.program is not None else why(store, key, found.refused)
    if given.html is not None:
        _write_page(given, store, key, miss)
    changes = () if miss is None else miss.changes
    parts = [dict(zip(("part", "was", "is"), change, strict=True)) for change in changes]
    tell(
        given,
        {
            "found": miss is None,
            "key": key.digest,
            "beside": "" if miss is None else miss.beside,
            "nearest": "" if miss is None or miss.nearest is None else miss.nearest.key,
            "changes": parts,
        },
        f"found: {key.digest}" if miss is None else f"not found: {key.digest}: {miss}",
    )
    return 0 if miss is None else MISSING


def _write_page(given: Namespace, store: Store, key: ProgramKey, miss: Miss | None) -> None:
    from hotstart.cache.look_page import look_page

    exchange = store.exchange
    place = str(store.folder.root)
    problems: Sequence[str] = ()
    if exchange is not None:
        place, problems = f"{place}, then {exchange.remote}", list(exchange.remote.problems)
    write_page(given.html, look_page(key, miss, str(given.factory), place, problems))
