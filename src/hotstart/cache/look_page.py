"""Show whether a cache has a program for a model, and why not, as one page of HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hotstart.cache.advice import advice_for
from hotstart.cache.explain import COMPARED, Miss
from hotstart.records.guards import Change, ProgramKey
from hotstart.reporting.rendering import rendered


@dataclass(frozen=True)
class Advised:
    """Differences about which the same is to be done.

    Attributes:
        advice: what to do.
        changes: part, what it was in the program that is stored, what it is.
    """

    advice: str
    changes: tuple[Change, ...]


def look_page(
    key: ProgramKey, miss: Miss | None, asked: str, place: str, problems: Sequence[str] = ()
) -> str:
    """A look into a cache as a page.

    Args:
        key: what was looked for.
        miss: why nothing was found; None if a program was. Whatever it says is escaped.
        asked: the factory whose program was looked for.
        place: the cache that was looked in.
        problems: what failed at a remote.

    Raises:
        OptionsError: a package is missing.
    """
    nearest = miss.nearest if miss is not None else None
    created = "" if nearest is None else _time(nearest.created)
    shown = {
        "key": key,
        "miss": miss,
        "advised": list(advised(miss.changes)) if miss is not None else [],
        "created": created,
        "parts": sorted(key.parts.items()),
        "asked": asked,
        "place": place,
        "problems": problems,
        "compared": COMPARED,
    }
    return rendered(
        "look",
        shown,
        title=asked,
        eyebrow="Cache hit" if miss is None else "Cache miss",
        written_by="hotstart explain",
    )


def advised(changes: Sequence[Change]) -> Iterator[Advised]:
    """Gather differences by what is to be done, in the order of the first of each."""
    gathered: dict[str, list[Change]] = {}
    for change in changes:
        gathered.setdefault(advice_for(change), []).append(change)
    for advice, same in gathered.items():
        yield Advised(advice, tuple(same))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
