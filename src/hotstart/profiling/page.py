"""Show where the time of a call went as one page of HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hotstart.profiling.limits import Rates, Standing
from hotstart.profiling.record import Profile
from hotstart.profiling.rows import KernelRow, PieceRow, slowest_first
from hotstart.reporting import looks
from hotstart.reporting.rendering import rendered
from hotstart.reporting.timeline import Bar, Lane, ticks_of

WORTH_A_LOOK = 0.01
"""Share of a call from which a kernel is worth a look."""

_LOOKED_AT = 5
"""Kernels to look at first, at most."""

_OTHERS = 1.0
"""Processes besides the threads that are measured, on average, from which times are in doubt."""

_STANDINGS: dict[Standing | str, str] = {
    "at": "at the limit",
    "below": "below both limits",
    "cache": "in cache, operations not known",
    "unknown": "operations not known",
    "between": "Python, between kernels",
}


@dataclass(frozen=True)
class Part:
    """Pieces that run the same unit, as a page shows them.

    Attributes:
        label: a letter or more, which stands for them on the page.
        style: classes of their colour and pattern; of what runs once, empty.
        row: the pieces.
    """

    label: str
    style: str
    row: PieceRow

    @property
    def anchor(self) -> str:
        """The name of its place on the page."""
        return f"part-{self.label}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its pieces; neighbours as a range."""
        return tuple(looks.ranges_of(self.row.names)) or ("between pieces",)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers; neighbours as a range."""
        return tuple(looks.ranges_of(self.row.layers))


@dataclass(frozen=True)
class Stood:
    """A share of a call, by how it stands to the limits of the machine.

    Attributes:
        standing: the class of its colour.
        words: the same in words.
        seconds: how much that is.
        share: of the call, between 0 and 1.
    """

    standing: str
    words: str
    seconds: float
    share: float


def page_of(profile: Profile, name: str = "") -> str:
    """A profile as a page.

    Args:
        profile: where the time went; whatever it says is escaped.
        name: of what was measured, for the title; by default its variant.

    Raises:
        OptionsError: a package is missing.
    """
    rows = profile.rows()
    parts = parts_of(rows)
    kernels = slowest_first(rows)
    shown = {
        "profile": profile,
        "parts": sorted(parts, key=lambda part: -part.row.rates.seconds),
        "of_piece": {piece.name: part for part in parts for piece in part.row.pieces},
        "kernels": kernels,
        "first": look_first(kernels),
        "stood": stood_of(profile, kernels),
        "lanes": [Lane("pieces in order", tuple(_bars(profile, parts)))],
        "ticks": ticks_of(profile.seconds_in_parts),
        "busy": profile.load > profile.threads + _OTHERS,
    }
    call = f"{profile.call}: {profile.variant}" if profile.call else profile.variant
    return rendered(
        "profile",
        {**shown, "call": call},
        title=name or call,
        eyebrow="Profile",
        written_by="hotstart profile",
        filters={
            "standing": standing_text,
            "percent": lambda share: f"{100 * share:.1f} %",
            "si": si_text,
        },
    )


def parts_of(rows: Sequence[PieceRow]) -> list[Part]:
    """Give pieces that run the same unit a letter, and a colour where there are several."""
    styles = looks.styles()
    return [
        Part(looks.label_of(number), next(styles) if len(row.pieces) > 1 else "", row)
        for number, row in enumerate(rows)
    ]


def look_first(kernels: Sequence[KernelRow]) -> list[KernelRow]:
    """Those that take a share and are at no limit, as far as that is known."""
    return [
        kernel
        for kernel in kernels
        if kernel.rates.standing != "at" and kernel.rates.share >= WORTH_A_LOOK
    ][:_LOOKED_AT]


def stood_of(profile: Profile, kernels: Sequence[KernelRow]) -> list[Stood]:
    """Shares of a call by standing; the rest of the time is between kernels."""
    seconds = dict.fromkeys(_STANDINGS, 0.0)
    for kernel in kernels:
        seconds[kernel.rates.standing] += kernel.rates.seconds
    whole = profile.seconds_in_parts
    seconds["between"] = max(whole - sum(seconds.values()), 0.0)
    all_of_it = sum(seconds.values()) or 1.0
    return [
        Stood(name, _STANDINGS[name], taken, taken / all_of_it)
        for name, taken in seconds.items()
        if taken
    ]


def standing_text(rates: Rates) -> str:
    """Put a standing into words, to follow `Rates.limit_text`."""
    if rates.standing == "unknown" and rates.operations is not None:
        return "not all operations known"
    return "operations not known" if rates.standing == "cache" else _STANDINGS[rates.standing]


def si_text(value: float, unit: str) -> str:
    """A number with three digits that count and a prefix: `si_text(1.25e9, "B/s")`, `1.25 GB/s`."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{_digits(value / factor)} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _bars(profile: Profile, parts: Sequence[Part]) -> Iterator[Bar]:
    """The pieces in the order of the code, one after the other; then what is between them."""
    of = {piece.name: part for part in parts for piece in part.row.pieces}
    pieces = sum(piece.seconds for piece in profile.pieces)
    whole = max(profile.seconds_in_parts, pieces) or 1.0
    start = 0.0
    for piece in profile.pieces:
        name = piece.name or "between pieces"
        left, width = 100 * start / whole, 100 * piece.seconds / whole
        yield Bar(name, left, width, start, piece.seconds, of[piece.name])
        start += piece.seconds
