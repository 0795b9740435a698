"""Find the tensors of a table of weights in a checkpoint, whose names may differ by rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from hotstart.checkpoint.tensors import Checkpoint
from hotstart.records.artifact import WeightSpec
from hotstart.records.standalone import Naming, Prefix, Rename

_NEAR = 3
"""Names that are listed for one that is missing."""


def match(
    specs: Mapping[int, WeightSpec], names: Collection[str], naming: Naming
) -> dict[int, list[str]]:
    """Find the names that a checkpoint has for tensors of the table.

    One way of naming is taken for the whole checkpoint: the one that finds the most tensors, the
    plainest of several. Names are never guessed one by one.

    Args:
        specs: the tensors, by slot.
        names: those of the checkpoint.
        naming: how they may differ.

    Returns:
        By slot, the names in the checkpoint: several where a tied tensor is there several times,
        none where it is missing.
    """
    best: dict[int, list[str]] = {}
    most = -1
    for table in _tables(names, naming.renames):
        for prefix in _ways(specs.values(), naming.prefixes):
            found = {slot: _found(spec, prefix, table) for slot, spec in specs.items()}
            count = sum(map(bool, found.values()))
            if count > most:
                best, most = found, count
            if most == len(specs):
                return best
    return best


def _tables(names: Collection[str], renames: Sequence[Rename]) -> Iterator[Mapping[str, str]]:
    """The names of a checkpoint by what they are to be read as: as they are, then renamed."""
    yield {name: name for name in names}
    if renames:
        compiled = [(re.compile(rename.pattern), rename) for rename in renames]
        renamed: dict[str, str] = {}
        twice: set[str] = set()
        for name in names:
            new = _renamed(name, compiled)
            if new in renamed:
                twice.add(new)
            renamed[new] = name
        yield {new: name for new, name in renamed.items() if new not in twice}


def _renamed(name: str, renames: Sequence[tuple[re.Pattern[str], Rename]]) -> str:
    for pattern, rename in renames:
        scope = next((s for s in rename.scopes if name.startswith(s)), None)
        if scope is None and rename.scopes:
            continue
        kept = scope or ""
        name = kept + pattern.sub(rename.replacement, name[len(kept) :], count=1)
    return name


def _ways(specs: Collection[WeightSpec], prefixes: Sequence[Prefix]) -> list[Prefix]:
    """List the prefixes to try: none, those that were recorded, and one that all names share.

    A model that wraps another has it as an attribute, which the other's checkpoints know nothing
    of.
    """
    common = _shared([spec.name for spec in specs])
    wrappers = [Prefix(common[: at + 1], "") for at, letter in enumerate(common) if letter == "."]
    return list(dict.fromkeys([Prefix("", ""), *prefixes, *wrappers]))


def _shared(names: Sequence[str]) -> str:
    """The start that all names have in common, up to a dot."""
    if not names:
        return ""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    start = first if length is None else first[:length]
    return start[: start.rfind(".") + 1]


def _found(spec: WeightSpec, prefix: Prefix, table: Mapping[str, str]) -> list[str]:
    wanted = (_under(prefix, name) for name in (spec.name, *spec.ties))
    return list(dict.fromkeys(table[name] for name in wanted if name in table))


def _under(prefix: Prefix, name: str) -> str:
    if not name.startswith(prefix.ours):
        return name
    return prefix.theirs + name[len(prefix.ours) :]


def near(spec: WeightSpec, checkpoint: Checkpoint, taken: Collection[str]) -> list[str]:
    """List names of a checkpoint that look like a missing one: how they end, then by shape.

    Args:
        spec: the tensor that is missing.
        checkpoint: where to look.
        taken: names that other tensors were found under.
    """
    wanted = spec.name.split(".")

    def likeness(name: str) -> tuple[int, bool]:
        parts = name.split(".")
        pairs = zip(reversed(wanted), reversed(parts), strict=False)
        ending = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(parts)))
        return ending, checkpoint.shape(name) == spec.shape

    scored = [(likeness(name), name) for name in checkpoint.names() if name not in taken]
    good = [(score, name) for score, name in scored if score[0] > 0 or (score[1] and spec.shape)]
    good.sort(key=lambda item: (-min(item[0]), -item[0][0], item[1]))  # best: both
    return [name for _, name in good[:_NEAR]]
