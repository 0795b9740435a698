"""Events of a build, and the clock that sends them to listeners.

A `Clock` is always in exactly one phase, so the seconds of all phases add up to the wall time by
construction. Reports, progress bars and tests all listen to the same stream.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

EventKind = Literal[
    "phase_started",
    "unit_started",
    "unit_finished",
    "variant_finished",
    "variant_checked",
    "build_finished",
]


class Event(msgspec.Struct, frozen=True):
    """One thing that happened during a build.

    Attributes:
        kind: what happened.
        name: the phase, piece or variant it is about.
        seconds: how long it took, for `*_finished` events; else 0.
        done: units finished so far; of a check, steps.
        total: units in this build, 0 while unknown; of a check, steps.
        detail: more about it, JSON-able.
    """

    kind: EventKind
    name: str
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    detail: dict[str, str] = msgspec.field(default_factory=dict)


Listener = Callable[[Event], None]

PHASES = "phases"
"""The lane of the phases, of which there is one at a time."""

HERE = "this process"
"""The lane of pieces that the process that builds compiles itself."""

SHORTEST_S = 1e-3
"""Phases that were interrupted sooner leave no span."""


class Span(msgspec.Struct, frozen=True):
    """A stretch of time in which one thing was done.

    Attributes:
        lane: who did it: `"phases"`, `"this process"`, or a worker, such as `"worker 1"`. Spans of
            one lane do not overlap.
        name: the phase or the piece.
        start: seconds since the clock was made.
        seconds: how long it took.
    """

    lane: str
    name: str
    start: float
    seconds: float


class Clock:
    """Attributes every moment of a build to one phase and tells listeners about it."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._started = self._mark = time.perf_counter()
        self._current = "other"
        self._phases: dict[str, float] = {}
        self._spans: list[Span] = []

    def emit(self, event: Event) -> None:
        """Pass an event to the listener, if there is one."""
        if self._listener is not None:
            self._listener(event)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attribute the time spent inside to `name`, and none of it to the surrounding phase."""
        outer = self._switch(name)
        self.emit(Event("phase_started", name))
        try:
            yield
        finally:
            self._switch(outer)

    @contextlib.contextmanager
    def span(self, lane: str, name: str) -> Iterator[None]:
        """Record what is done inside, beside the phases; in any thread."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._record(lane, name, began, time.perf_counter())

    def spans(self) -> tuple[Span, ...]:
        """List the spans by start time, without phases shorter than a millisecond."""
        return tuple(sorted(self._spans, key=lambda span: span.start))

    def phases(self) -> dict[str, float]:
        """Seconds by phase, up to when one began or ended last; so they stay when work is done."""
        return dict(self._phases)

    def wall_s(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._started

    def _switch(self, name: str) -> str:
        now = time.perf_counter()
        outer = self._current
        self._phases[outer] = self._phases.get(outer, 0.0) + now - self._mark
        if now - self._mark >= SHORTEST_S:
            self._record(PHASES, outer, self._mark, now)
        self._mark, self._current = now, name
        return outer

    def _record(self, lane: str, name: str, began: float, ended: float) -> None:
        self._spans.append(Span(lane, name, began - self._started, ended - began))
