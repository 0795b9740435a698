from __future__ import annotations

import contextlib
import math
import re
import time
from pathlib import Path

import pytest

from hotstart.events import Clock, Event, Span


class FakeTime:
    """A clock that moves only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


def test_time_goes_to_the_innermost_phase_only(fake_time: FakeTime) -> None:
    clock = Clock()
    fake_time.pass_seconds(1)
    with clock.phase("compile"):
        fake_time.pass_seconds(2)
        with clock.phase("digest"):
            fake_time.pass_seconds(4)
        fake_time.pass_seconds(8)
    fake_time.pass_seconds(16)
    with clock.phase("digest"):
        fake_time.pass_seconds(32)
    assert clock.phases() == {"other": 17, "compile": 10, "digest": 36}


def test_spans_say_what_was_done_when(fake_time: FakeTime) -> None:
    clock = Clock()
    fake_time.pass_seconds(1)
    with clock.phase("compile"):
        fake_time.pass_seconds(0.5)
        with clock.span("worker 1", "piece_0"):
            fake_time.pass_seconds(1.5)
        with clock.phase("prove"):
            fake_time.pass_seconds(2**-12)  # too short to be seen
        fake_time.pass_seconds(4)
    assert clock.spans() == (
        Span("phases", "other", 0.0, 1.0),
        Span("phases", "compile", 1.0, 2.0),
        Span("worker 1", "piece_0", 1.5, 1.5),
        Span("phases", "compile", 3 + 2**-12, 4.0),
    )


def test_a_span_that_fails_ends(fake_time: FakeTime) -> None:
    clock = Clock()
    with contextlib.suppress(ZeroDivisionError), clock.span("this process", "piece_0"):
        fake_time.pass_seconds(1)
        raise ZeroDivisionError
    assert clock.spans() == (Span("this process", "piece_0", 0.0, 1.0),)


def test_phases_add_up_to_the_wall_time(fake_time: FakeTime) -> None:
    clock = Clock()
    for seconds in (0.1, 0.02, 0.003):
        fake_time.pass_seconds(seconds)
        with clock.phase("capture"), clock.phase("trace"):
            fake_time.pass_seconds(seconds)
        assert math.isclose(sum(clock.phases().values()), clock.wall_s())


def test_time_after_the_last_phase_counts_for_none(fake_time: FakeTime) -> None:
    clock = Clock()
    with clock.phase("compile"):
        fake_time.pass_seconds(4)
    fake_time.pass_seconds(1)
    assert clock.phases() == {"other": 0, "compile": 4}


def test_a_phase_that_fails_ends_and_counts(fake_time: FakeTime) -> None:
    clock = Clock()

    def fail() -> None:
        with clock.phase("compile"):
            fake_time.pass_seconds(5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert clock.phases() == {"other": 0, "compile": 5}


def test_listeners_hear_events_in_order() -> None:
    heard: list[Event] = []
    clock = Clock(heard.append)
    with clock.phase("compile"):
        clock.emit(Event("unit_finished", "piece_0", 1.5, done=1, total=2))
    clock.emit(Event("build_finished", "model"))
    assert [(event.kind, event.name) for event in heard] == [
        ("phase_started", "compile"),
        ("unit_finished", "piece_0"),
        ("build_finished", "model"),
    ]


def test_the_page_on_reports_says_what_every_phase_is() -> None:
    root = Path(__file__).parents[2]
    source = "".join(file.read_text() for file in (root / "src/hotstart").rglob("*.py"))
    _, table = (root / "docs/report.md").read_text().split("## Phases\n")
    table = table.split("\n## ")[0]
    named = set(re.findall(r'phase\("([a-z ]+)"\)', source))
    assert len(named) > 20
    assert named - set(re.findall(r"`([a-z ]+)`", table)) == set()
