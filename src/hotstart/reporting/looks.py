"""Letters, colours and patterns that tell kinds of pieces apart; names in a row as ranges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

COLOURS = 8
PATTERNS = 4
"""Colours and patterns of what repeats, as the style sheet has them."""


class Look(Protocol):
    """Colour and label of a tile or a bar.

    Attributes:
        label: a letter or more.
        style: classes of its colour and pattern; empty for what occurs once.
    """

    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def style(self) -> str: ...  # noqa: D102


def styles() -> Iterator[str]:
    """Yield classes of a colour and a pattern, each other than those before as long as may be."""
    for number in itertools.count():
        yield f"c{number % COLOURS} p{number // COLOURS % PATTERNS}"


def label_of(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    high, low = divmod(number, 26)
    return (label_of(high - 1) if high else "") + chr(ord("A") + low)


def ranges_of(names: Sequence[str]) -> Iterator[str]:
    """Names that end in numbers; those in a row as one range."""
    for _, run in itertools.groupby(enumerate(names), key=lambda each: _run(*each)):
        row = [name for _, name in run]
        yield row[0] if len(row) == 1 else f"{row[0]} to {row[-1]}"


def _run(place: int, name: str) -> tuple[str, int | None]:
    """Split a name into what all names of one range share: text, and number minus place."""
    start = name.rstrip("0123456789")
    digits = name[len(start) :]
    return (start, int(digits) - place) if digits else (name, None)
