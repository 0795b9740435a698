"""`hotstart cache ACTION`: a function for each action. Only `push` and `pull` import torch."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator

from msgspec.structs import asdict

from hotstart.artifact import container
from hotstart.cache.entries import ENTRIES, PROGRAMS, CacheEntry, Entries
from hotstart.cache.folder import Folder, default_place, is_damage
from hotstart.cache.signatures import signatures_of
from hotstart.cache.tidying import LIMITS, Limits, Stored
from hotstart.cli import flags, parse
from hotstart.cli.output import say, say_json, tell
from hotstart.errors import ArtifactError, StoreError
from hotstart.records.guards import described
from hotstart.records.table import columns, memory

_KEY = 12
"""Letters of a key that are shown, which are enough to name one."""

_WHOLE_KEY = 32
"""Letters of a whole key."""


def add_cache(command: ArgumentParser) -> None:
    """Declare the actions of `hotstart cache`, and their flags."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (run, about) in _ACTIONS.items():
        action = actions.add_parser(name, help=about, description=f"{about.capitalize()}.")
        flags.add_cache(action)
        flags.add_json(action)
        action.set_defaults(run=run)
        if name in ("push", "pull", "verify"):
            flags.add_trusted(action)
        if name in ("push", "pull"):
            flags.add_remote(action, required=True)
            action.add_argument(
                "key", metavar="KEY", nargs="?", default="", help="a key, or how it begins"
            )
        if name in ("show", "pin", "unpin", "rm"):
            action.add_argument("key", metavar="KEY", help="a key, or how it begins")
        if name == "gc":
            action.add_argument("--max-bytes", type=parse.count, metavar="N")
            action.add_argument("--max-files", type=parse.count, metavar="N")
            action.add_argument("--max-age-days", type=float, metavar="DAYS")


def _folder(given: Namespace) -> Folder:
    return Folder(given.cache or default_place(), strict=True)


def _ls(given: Namespace) -> None:
    folder = _folder(given)
    entries, pinned = Entries(folder).all(), Entries(folder).pinned()
    if given.json:
        say_json([{**asdict(entry), "pinned": entry.name in pinned} for entry in entries])
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


def _show(given: Namespace) -> None:
    entries = Entries(_folder(given))
    found = _named(entries, given.key)
    shown = [(asdict(e), entries.key_of(e).parts, entries.seen(e) or ()) for e in found]
    if given.json:
        say_json([{**plain, "parts": parts, "seen": seen} for plain, parts, seen in shown])
        return
    for plain, parts, seen in shown:
        del plain["seen"]
        say("\n".join(f"{name}: {value}" for name, value in plain.items()))
        say("\n".join(f"  {name} = {value}" for name, value in parts.items()))
        say("\n".join(f"  {described(one)} = {one.guard.text}" for one in seen))


def _stats(given: Namespace) -> None:
    folder = _folder(given)
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: {"files": 0, "bytes": 0})
    for stored in folder.files():
        kinds[stored.kind]["files"] += 1
        kinds[stored.kind]["bytes"] += stored.bytes
    damaged = folder.in_quarantine()
    rows = [(kind, str(n["files"]), memory(n["bytes"])) for kind, n in sorted(kinds.items())]
    tell(
        given,
        {"folder": str(folder.root), "kinds": kinds, "quarantine": damaged},
        str(folder.root),
        *columns([("kind", "files", "size"), *rows], "<>>"),
        f"{len(damaged)} damaged files in quarantine",
    )


def _verify(given: Namespace) -> int:
    folder = _folder(given)
    trust = signatures_of(None, given.trusted_key).trust
    damaged: list[dict[str, str]] = []
    count = 0
    for stored in folder.files():
        count += 1
        try:
            container.require_whole(folder.path(stored.kind, stored.name), trust)
        except ArtifactError as error:
            if folder.is_gone(stored.kind, stored.name):
                continue
            if is_damage(error):
                folder.quarantine(stored.kind, stored.name, str(error))
            damaged.append({"kind": stored.kind, "name": stored.name, "error": str(error)})
    if given.json:
        say_json({"ok": not damaged, "files": count, "damaged": damaged})
        return 1 if damaged else 0
    if damaged:
        names = ", ".join(f"{one['kind']}/{one['name']}" for one in damaged)
        raise StoreError(
            f"expected {count} files as they were written, found {len(damaged)} damaged, not "
            f"to be read or untrusted: {names}. What is damaged was put into quarantine, and is "
            "compiled again."
        )
    say(f"all {count} files are as they were written")
    return 0


def _gc(given: Namespace) -> None:
    age_s = None if given.max_age_days is None else given.max_age_days * 86400
    limits = Limits(
        bytes=LIMITS.bytes if given.max_bytes is None else given.max_bytes,
        files=LIMITS.files if given.max_files is None else given.max_files,
        age_s=age_s,
    )
    folder = _folder(given)
    done = folder.tidy(limits)
    removed = [*done.removed, *_orphans(folder)]
    gone = [{"kind": s.kind, "name": s.name, "bytes": s.bytes} for s in removed]
    kept = {"kept_files": done.kept_files, "kept_bytes": done.kept_bytes}
    freed = memory(sum(stored.bytes for stored in removed))
    tell(
        given,
        {"removed": gone, "leftovers": done.leftovers, **kept},
        f"removed {len(removed)} files, {freed}, and {done.leftovers} unfinished ones",
        f"kept {done.kept_files} files, {memory(done.kept_bytes)}",
    )


def _rm(given: Namespace) -> None:
    folder = _folder(given)
    entries = Entries(folder)
    found = _named(entries, given.key)
    for entry in found:
        entries.remove(entry)
        if not any(other.program == entry.program for other in entries.all()):
            folder.remove(PROGRAMS, entry.program)
    _tell_of(given, "removed", found)


def _pin(given: Namespace) -> None:
    _each(given, "pinned", Entries.pin)


def _unpin(given: Namespace) -> None:
    _each(given, "unpinned", Entries.unpin)


def _each(given: Namespace, done: str, action: Callable[[Entries, CacheEntry], bool]) -> None:
    entries = Entries(_folder(given))
    changed = [entry for entry in _named(entries, given.key) if action(entries, entry)]
    _tell_of(given, done, changed)


def _tell_of(given: Namespace, done: str, entries: list[CacheEntry]) -> None:
    tell(given, {"ok": True, done: entries}, f"{done} {len(entries)} programs")


def _push(given: Namespace) -> None:
    """Publish programs at a remote: all of them and all pieces, or those of a key."""
    store = flags.store(given.cache, given.remote, trusted_keys=given.trusted_key)
    entries = _named(store.entries, given.key) if given.key else store.entries.all()
    pushed = [entry for entry in entries if store.push(entry)]
    _exchanged(given, "published", pushed, 0 if given.key else store.push_pieces())


def _pull(given: Namespace) -> None:
    """Bring programs from a remote: all of them, or those of a key."""
    store = flags.store(given.cache, given.remote, trusted_keys=given.trusted_key)
    keys = [given.key] if len(given.key) == _WHOLE_KEY else store.shared_keys(given.key)
    _exchanged(given, "brought", [entry for key in keys for entry in store.pull(key)], 0)


def _exchanged(given: Namespace, done: str, entries: list[CacheEntry], pieces: int) -> None:
    text = f"{done} {len(entries)} programs" + (f" and {pieces} pieces" if pieces else "")
    tell(given, {"ok": True, "programs": entries, "pieces": pieces}, text)


def _orphans(folder: Folder) -> Iterator[Stored]:
    """Remove entries whose program is gone."""
    programs = set(folder.names(PROGRAMS))
    for stored in list(folder.files()):
        gone = stored.kind == ENTRIES and stored.name.split(".")[1] not in programs
        if gone and folder.remove(ENTRIES, stored.name):
            yield stored


def _named(entries: Entries, key: str) -> list[CacheEntry]:
    """Find the programs whose key begins with some letters.

    Raises:
        StoreError: there is none, or fewer than 4 letters are given.
    """
    found = entries.of(key) if len(key) >= 4 else []
    if not found:
        raise StoreError(
            f"expected the first letters of a key, at least 4; found {key!r}, which no "
            "stored program has. `hotstart cache ls` lists them."
        )
    return found


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


_ACTIONS: dict[str, tuple[Callable[[Namespace], int | None], str]] = {
    "ls": (_ls, "list the programs, the newest first"),
    "show": (_show, "show what a program was compiled for"),
    "stats": (_stats, "count files and bytes"),
    "push": (_push, "publish programs and pieces at a remote"),
    "pull": (_pull, "bring programs from a remote"),
    "verify": (_verify, "check every byte of every file"),
    "gc": (_gc, "remove what is unfinished, too old or too much"),
    "pin": (_pin, "keep programs whatever the limits"),
    "unpin": (_unpin, "let limits count again for programs"),
    "rm": (_rm, "remove programs"),
}
