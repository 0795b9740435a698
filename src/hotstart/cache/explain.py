"""Explain why nothing was found under a key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hotstart.records.guards import Change, ProgramKey

if TYPE_CHECKING:
    from hotstart.cache.store import Store

LISTED = 8
COMPARED = 200
"""So many stored programs, those that were used last, are compared with a key that is new."""


def explain(store: Store, key: ProgramKey, reasons: Sequence[Sequence[Change]]) -> str:
    """As `why`, a line for each difference."""
    beside, changes = why(store, key, reasons)
    return listed(beside, changes) if changes else beside


def why(
    store: Store, key: ProgramKey, reasons: Sequence[Sequence[Change]]
) -> tuple[str, Sequence[Change]]:
    """Name the program nearest to one that was not found, and all that differs.

    Args:
        store: the store.
        key: the key that was looked for.
        reasons: for every program of that key, what of it does not fit.
    """
    if reasons:
        return "the same key, but", min(reasons, key=len)
    nearest = _nearest(store, key)
    if nearest is None:
        return "nothing is stored yet", ()
    return "nothing has this key; beside the nearest that is stored", nearest


def difference(stored: dict[str, str], wanted: dict[str, str]) -> list[Change]:
    """List the parts in which two keys differ."""
    names = dict.fromkeys([*stored, *wanted])
    return [
        (name, stored.get(name, "nothing"), wanted.get(name, "nothing"))
        for name in names
        if stored.get(name) != wanted.get(name)
    ]


def _nearest(store: Store, key: ProgramKey) -> list[Change] | None:
    keys = map(store.entries.key_of, store.entries.recent(COMPARED))
    differences = (difference(stored.parts, key.parts) for stored in keys)
    return min(differences, key=len, default=None)


def listed(intro: str, changes: Iterable[Change]) -> str:
    """Changes in lines of their own, the first few of them."""
    lines = [f"  {name}: was {expected}, is {found}" for name, expected, found in changes]
    more = [f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n".join([f"{intro}:", *lines[:LISTED], *more])
