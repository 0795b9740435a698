"""`hotstart cache ACTION`: one function for each action. Nothing here imports torch."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from hotstart.artifact import container
from hotstart.cache.entries import ENTRIES, PROGRAMS, CacheEntry, Entries
from hotstart.cache.folder import Folder, default_place, is_damage
from hotstart.cache.tidying import LIMITS, Limits, Stored
from hotstart.cli.output import say, say_json
from hotstart.errors import ArtifactError, StoreError
from hotstart.records.guards import described
from hotstart.records.table import columns, memory

if TYPE_CHECKING:
    from hotstart.cli.requests import CacheRequest

_KEY = 12
"""So many letters of a key are shown, and are enough to name one."""


def run(request: CacheRequest) -> None:
    """Do what was asked of a cache.

    Raises:
        StoreError: there is no such key, or something in the cache is damaged.
    """
    folder = Folder(request.folder or default_place(), strict=True)
    _ACTIONS[request.action](folder, request)


def _ls(folder: Folder, request: CacheRequest) -> None:
    entries = Entries(folder).all()
    pinned = Entries(folder).pinned()
    if request.json:
        say_json([{**_plain(entry), "pinned": entry.name in pinned} for entry in entries])
        return
    now = time.time()
    rows = [
        (
            entry.key[:_KEY],
            entry.model,
            memory(entry.bytes),
            _ago(now - entry.created),
            "pinned" if pinned and entry.name in pinned else "",
        )
        for entry in entries
    ]
    if rows:
        say("\n".join(columns([("key", "model", "size", "compiled", ""), *rows], "<<>><")))
    else:
        say(f"nothing is stored in {folder.root}", sys.stderr)


def _show(folder: Folder, request: CacheRequest) -> None:
    entries = Entries(folder)
    found = named(entries, request.key)
    shown = [(_plain(e), entries.key_of(e).parts, entries.seen(e) or ()) for e in found]
    if request.json:
        say_json(
            [
                {**plain, "parts": parts, "seen": msgspec.to_builtins(seen)}
                for plain, parts, seen in shown
            ]
        )
        return
    for plain, parts, seen in shown:
        del plain["seen"]
        say("\n".join(f"{name}: {value}" for name, value in plain.items()))
        say("\n".join(f"  {name} = {value}" for name, value in parts.items()))
        say("\n".join(f"  {described(one)} = {one.guard.text}" for one in seen))


def _stats(folder: Folder, request: CacheRequest) -> None:
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: {"files": 0, "bytes": 0})
    for stored in folder.files():
        kinds[stored.kind]["files"] += 1
        kinds[stored.kind]["bytes"] += stored.bytes
    damaged = folder.in_quarantine()
    if request.json:
        say_json({"folder": str(folder.root), "kinds": kinds, "quarantine": damaged})
        return
    rows = [(kind, str(n["files"]), memory(n["bytes"])) for kind, n in sorted(kinds.items())]
    say(f"{folder.root}")
    say("\n".join(columns([("kind", "files", "size"), *rows], "<>>")))
    say(f"{len(damaged)} damaged files in quarantine")


def _verify(folder: Folder, request: CacheRequest) -> None:
    damaged: list[dict[str, str]] = []
    count = 0
    for stored in folder.files():
        count += 1
        try:
            container.read(folder.path(stored.kind, stored.name))
        except ArtifactError as error:
            if folder.is_gone(stored.kind, stored.name):
                continue
            if is_damage(error):
                folder.quarantine(stored.kind, stored.name, str(error))
            damaged.append({"kind": stored.kind, "name": stored.name, "error": str(error)})
    if request.json:
        say_json({"ok": not damaged, "files": count, "damaged": damaged})
    if damaged:
        names = ", ".join(f"{one['kind']}/{one['name']}" for one in damaged)
        if not request.json:
            raise StoreError(
                f"expected {count} files as they were written, found {len(damaged)} damaged or "
                f"not to be read: {names}. What is damaged was put into quarantine, and is "
                "compiled again."
            )
    elif not request.json:
        say(f"all {count} files are as they were written")


def _gc(folder: Folder, request: CacheRequest) -> None:
    age_s = None if request.max_age_days is None else request.max_age_days * 86400
    limits = Limits(
        bytes=LIMITS.bytes if request.max_bytes is None else request.max_bytes,
        files=LIMITS.files if request.max_files is None else request.max_files,
        age_s=age_s,
    )
    done = folder.tidy(limits)
    removed = [*done.removed, *_orphans(folder)]
    if request.json:
        gone = [{"kind": s.kind, "name": s.name, "bytes": s.bytes} for s in removed]
        kept = {"kept_files": done.kept_files, "kept_bytes": done.kept_bytes}
        say_json({"removed": gone, "leftovers": done.leftovers, **kept})
        return
    freed = sum(stored.bytes for stored in removed)
    say(f"removed {len(removed)} files, {memory(freed)}, and {done.leftovers} unfinished ones")
    say(f"kept {done.kept_files} files, {memory(done.kept_bytes)}")


def _rm(folder: Folder, request: CacheRequest) -> None:
    entries = Entries(folder)
    found = named(entries, request.key)
    for entry in found:
        entries.remove(entry)
        if not any(other.program == entry.program for other in entries.all()):
            folder.remove(PROGRAMS, entry.program)
    if request.json:
        say_json({"ok": True, "removed": [_plain(entry) for entry in found]})
    else:
        say(f"removed {len(found)} programs")


def _pin(folder: Folder, request: CacheRequest) -> None:
    _each(folder, request, "pinned", Entries(folder).pin)


def _unpin(folder: Folder, request: CacheRequest) -> None:
    _each(folder, request, "unpinned", Entries(folder).unpin)


def _each(
    folder: Folder, request: CacheRequest, done: str, action: Callable[[CacheEntry], bool]
) -> None:
    found = named(Entries(folder), request.key)
    changed = [entry for entry in found if action(entry)]
    if request.json:
        say_json({"ok": True, done: [_plain(entry) for entry in changed]})
    else:
        say(f"{done} {len(changed)} programs")


def _orphans(folder: Folder) -> Iterator[Stored]:
    """Remove entries whose program is gone."""
    programs = set(folder.names(PROGRAMS))
    for stored in list(folder.files()):
        gone = stored.kind == ENTRIES and stored.name.split(".")[1] not in programs
        if gone and folder.remove(ENTRIES, stored.name):
            yield stored


def named(entries: Entries, key: str) -> list[CacheEntry]:
    """The programs whose key begins so.

    Raises:
        StoreError: there is none, or that is too short to mean one.
    """
    found = entries.of(key) if len(key) >= 4 else []
    if not found:
        raise StoreError(
            f"expected the first letters of a key, at least 4; found {key!r}, which no "
            "stored program has. `hotstart cache ls` lists them."
        )
    return found


def _plain(entry: CacheEntry) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(entry)
    return plain


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


_ACTIONS: dict[str, Callable[[Folder, CacheRequest], None]] = {
    "ls": _ls,
    "show": _show,
    "stats": _stats,
    "verify": _verify,
    "gc": _gc,
    "pin": _pin,
    "unpin": _unpin,
    "rm": _rm,
}
