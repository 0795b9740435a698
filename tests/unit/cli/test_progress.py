"""What a build shows while it goes on: a bar, lines, or nothing."""

from __future__ import annotations

import io
import re
import sys

import pytest

from hotstart.cli.progress import Lines, progress
from hotstart.events import Event

EVENTS = (
    Event("phase_started", "capture"),
    Event("phase_started", "compile"),
    Event("unit_started", "piece_0", total=2),
    Event("unit_finished", "piece_0", 1.25, done=1, total=2, detail={"layers": "encoder"}),
    Event("phase_started", "compile"),
    Event("unit_finished", "piece_1", 0.001, done=2, total=2),
    Event("variant_finished", "seq=2..64", 1.26, done=2, total=2),
    Event("phase_started", "save"),
    Event("variant_checked", "seq=2..64", done=1, total=2, detail={"step": "run from the file"}),
    Event("variant_checked", "seq=2..64", done=2, total=2, detail={"step": "compared"}),
    Event("build_finished", "model", 2.0),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_for_a_log() -> None:
    stream = io.StringIO()
    with progress(stream) as listener:
        for event in EVENTS:
            listener(event)
    assert stream.getvalue().splitlines() == [
        "capture",
        "compile",
        "  [1/2] piece_0 (encoder) 1.25 s",
        "  variant seq=2..64 1.26 s",
        "save",
        "  checked seq=2..64",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with progress(stream) as listener:
        assert not isinstance(listener, Lines)
        for event in EVENTS:
            listener(event)
    assert "2/2" in stream.getvalue()


def test_a_bar_says_what_is_being_done_and_what_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    about = {"layers": "encoder.layer.0", "variant": "seq=2..64"}
    stream = Terminal()
    with progress(stream) as listener:
        for number, action in enumerate(("compiled", "reused", "reused")):
            listener(Event("unit_started", f"piece_{number}", done=number, total=3, detail=about))
            done = {"action": action}
            listener(Event("unit_finished", f"piece_{number}", 0.1, number + 1, 3, done))
    assert "piece_2  encoder.layer.0  seq=2..64" in stream.getvalue()
    assert "1 compiled, 2 reused" in stream.getvalue()


def test_a_bar_keeps_the_piece_while_phases_change_and_says_what_time_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    now = 0.0
    monkeypatch.setattr("rich.console.monotonic", lambda: now)
    about = {"layers": "encoder.layer.0", "variant": "batch=2..16,seq=2..256"}
    stream = Terminal()
    with progress(stream) as listener:
        listener(Event("unit_started", "piece_0", total=4, detail=about))
        listener(Event("phase_started", "compile"))
        now = 10.0
        compiled = {"action": "compiled", "unmade": "2"}
        listener(Event("unit_finished", "piece_0", 10.0, 1, 4, compiled))
        listener(Event("unit_started", "piece_1", done=1, total=4, detail=about))
        stream.truncate(0)
        listener(Event("phase_started", "compile"))
        shown = stream.getvalue()
    assert "piece_1  encoder.layer.0  batch=2..16,seq=2..256" in shown
    assert re.search(r"compile .* 1/4 +1 compiled +0:10, about 0:20 left", shown)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with progress(Terminal()) as listener:
        assert isinstance(listener, Lines)


def test_nothing_is_shown_where_that_is_asked_for() -> None:
    stream = Terminal()
    with progress(stream, quiet=True) as listener:
        for event in EVENTS:
            listener(event)
    assert stream.getvalue() == ""


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for wanted, value in ((True, ""), (False, "1")):
        monkeypatch.setenv("NO_COLOR", value)
        stream = Terminal()
        with progress(stream) as listener:
            for event in EVENTS:
                listener(event)
        assert bool(re.search(r"\x1b\[[\d;]*3[0-7]", stream.getvalue())) is wanted


def test_lines_on_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    with progress(Terminal()) as listener:
        assert isinstance(listener, Lines)
