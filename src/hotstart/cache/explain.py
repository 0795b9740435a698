"""Explain why nothing was found under a key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotstart.cache.entries import ENTRIES, CacheEntry
from hotstart.cache.stale import Refused
from hotstart.records.guards import Change, ProgramKey

if TYPE_CHECKING:
    from hotstart.cache.store import Store

LISTED = 8
COMPARED = 200
"""So many stored programs, those that were used last, are compared with a key that is new."""


@dataclass(frozen=True)
class Miss:
    """Why nothing was found under a key.

    Attributes:
        key: the key that was looked for.
        nearest: the program that differs least; None if none is stored.
        same_key: whether that has the key, and something else that forward reads differs.
        changes: all that differs.
        looked_at: how many programs were compared.
        empty: where none is stored, what is stored instead.
    """

    key: ProgramKey
    nearest: CacheEntry | None = None
    same_key: bool = False
    changes: tuple[Change, ...] = ()
    looked_at: int = 0
    empty: str = "nothing is stored yet"

    @property
    def beside(self) -> str:
        """Say in a line what was found instead."""
        if self.nearest is None:
            return self.empty
        if self.same_key:
            return "the same key, but"
        return "nothing has this key; beside the nearest that is stored"

    def __str__(self) -> str:
        return listed(self.beside, self.changes) if self.changes else self.beside


def why(store: Store, key: ProgramKey, refused: Sequence[Refused]) -> Miss:
    """Name the program nearest to one that was not found, and all that differs.

    Args:
        store: the store.
        key: the key that was looked for.
        refused: every program of that key, with what of it does not fit.
    """
    if refused:
        nearest = min(refused, key=lambda one: len(one.changes))
        return Miss(key, nearest.entry, True, nearest.changes, len(refused))
    entries = store.entries.recent(COMPARED)
    if not entries:
        if not any(store.folder.names(ENTRIES)):
            return Miss(key)
        if store.signatures.trust is not None:
            return Miss(key, empty="nothing is stored that a trusted key signed")
        return Miss(key, empty="nothing is stored that this version of hotstart reads")
    differences = [difference(store.entries.key_of(entry).parts, key.parts) for entry in entries]
    least = min(range(len(entries)), key=lambda number: len(differences[number]))
    return Miss(key, entries[least], False, tuple(differences[least]), len(entries))


def difference(stored: dict[str, str], wanted: dict[str, str]) -> list[Change]:
    """List the parts in which two keys differ."""
    names = dict.fromkeys([*stored, *wanted])
    return [
        (name, stored.get(name, "nothing"), wanted.get(name, "nothing"))
        for name in names
        if stored.get(name) != wanted.get(name)
    ]


def listed(intro: str, changes: Iterable[Change]) -> str:
    """Changes in lines of their own, the first few of them."""
    lines = [f"  {name}: was {expected}, is {found}" for name, expected, found in changes]
    more = [f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n".join([f"{intro}:", *lines[:LISTED], *more])
