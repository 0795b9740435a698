"""Timeline of a build: bars in lanes. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hotstart.events import PHASES
from hotstart.records.report import Report
from hotstart.reporting.looks import Look
from hotstart.reporting.view import Kind

_LAST_TICK = 95.0
"""The last place where a label fits, in percent."""

_FEWEST_TICKS = 5


@dataclass(frozen=True)
class Bar:
    """A bar of a timeline.

    Attributes:
        name: the phase or the piece.
        left, width: in percent of the whole time.
        start, seconds: in seconds.
        kind: the kind of the piece; None for phases, and for what lies between pieces.
    """

    name: str
    left: float
    width: float
    start: float
    seconds: float
    kind: Look | None


@dataclass(frozen=True)
class Lane:
    """A row of a timeline."""

    name: str
    bars: tuple[Bar, ...]


def lanes_of(report: Report, kinds: Sequence[Kind]) -> list[Lane]:
    """The timeline of a report; no lanes where there are no times."""
    of = {piece.name: kind for kind in kinds for piece in kind.pieces}
    whole = report.wall_s or 1.0
    lanes: dict[str, list[Bar]] = {}
    for span in report.spans:
        kind = None if span.lane == PHASES else of.get(span.name)
        left, width = 100 * span.start / whole, 100 * span.seconds / whole
        bar = Bar(span.name, left, min(width, 100 - left), span.start, span.seconds, kind)
        bars = lanes.setdefault(span.lane, [])
        if kind is None and bars and bars[-1].name == bar.name:
            bar = _joined(bars.pop(), bar)
        bars.append(bar)
    ordered = sorted(lanes, key=lambda name: (name != PHASES, name.startswith("worker"), name))
    return [Lane(name, tuple(lanes[name])) for name in ordered]


def ticks_of(seconds: float) -> list[tuple[float, str]]:
    """Places on a timeline, in percent, with their times; none whose label would be cut off."""
    if seconds <= 0:
        return []
    steps = (m * 10.0**e for e in range(-7, 6) for m in (1, 2, 5))
    step = max((s for s in steps if seconds / s >= _FEWEST_TICKS), default=seconds)
    count = int(seconds / step)
    factor, unit = (1, "s") if seconds >= 1 else (1e3, "ms")
    ticks = [(100 * step * n / seconds, f"{factor * step * n:g} {unit}") for n in range(count + 1)]
    return [(place, label) for place, label in ticks if place <= _LAST_TICK]


def _joined(first: Bar, second: Bar) -> Bar:
    """Two bars of a phase, with what was too short to be shown between them."""
    end = second.left + second.width
    seconds = second.start + second.seconds - first.start
    return Bar(first.name, first.left, end - first.left, first.start, seconds, None)
