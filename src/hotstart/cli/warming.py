"""Compile what one factory makes into a cache, and describe what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hotstart
from hotstart.cli import flags, parse
from hotstart.cli.factory import Model
from hotstart.errors import StoreError
from hotstart.options import Jobs

if TYPE_CHECKING:
    from hotstart.cache.store import Store
    from hotstart.events import Listener

Row = dict[str, Any]
"""`factory`, `action`, `seconds`, `key` and `error`, as `hotstart warm --json` prints them."""


@dataclass(frozen=True)
class Place:
    """Place where programs are kept.

    Attributes:
        folder: of the cache; None: the default one.
        remote: the URL of its remote.
        check: whether a program is run in a process of its own before it is kept.
        sign_key: file of the private key that signs what is kept.
        trusted_keys: public keys besides; only what one of these has signed is read.
    """

    folder: Path | None
    remote: str | None
    check: bool
    sign_key: Path | None = None
    trusted_keys: Sequence[str] | None = None

    def store(self, extra_key: str = "") -> Store:
        """The store; its trouble is an error, and its warnings are shown."""
        return flags.store(
            self.folder,
            self.remote,
            check=self.check,
            extra_key=extra_key,
            sign_key=self.sign_key,
            trusted_keys=self.trusted_keys,
        )


def compile_into(
    factory: parse.Factory,
    model: Model,
    arguments: Mapping[str, Any],
    jobs: Jobs | None,
    place: Place,
    listener: Listener,
) -> tuple[str, float, str]:
    """Compile what a factory has made into a cache.

    Args:
        factory: the factory.
        model: the model that it made.
        arguments: of `hotstart.compile`, and the store's `extra_key`.
        jobs: how many processes compile; None: as the options say.
        place: where the program is kept.
        listener: is told of progress.

    Returns:
        `"compiled"` or `"loaded"`, the seconds that took, and the key.

    Raises:
        HotstartError: it cannot be compiled, or not be kept.
    """
    given = dict(arguments)
    key = hotstart.compute_key(model, **given).digest
    store = place.store(given.pop("extra_key", ""))
    started = time.perf_counter()
    heard = flags.listening(given, jobs, listener)
    with flags.compiling_on(heard):
        program = hotstart.compile(model, **heard, cache=store)
    seconds = time.perf_counter() - started
    if not store.probe(key):
        raise StoreError(
            f"expected the program of {factory} in {store}, found that it cannot be kept. "
            "The warning above says why."
        )
    actions = {unit.action for unit in program.report.units}
    return "compiled" if "compiled" in actions else "loaded", seconds, key


def compiled_row(factory: parse.Factory, action: str, seconds: float, key: str) -> Row:
    """Describe a program that is in the cache now."""
    return {"factory": str(factory), "action": action, "seconds": seconds, "key": key, "error": ""}


def failed_row(factory: parse.Factory, seconds: float, error: str) -> Row:
    """Describe a factory whose program is not in the cache."""
    return {
        "factory": str(factory), "action": "failed", "seconds": seconds, "key": "", "error": error,
    }  # fmt: skip
