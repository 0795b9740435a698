"""What is shown while many models are compiled."""

from __future__ import annotations

import io

import pytest

from hotstart.cli.warm_progress import models_shown
from hotstart.events import Event

FACTORIES = ("shop.search:encoder", "shop.rank:model")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(stream: io.StringIO, **more: bool) -> None:
    """Two models: the first compiles a piece, the second is loaded."""
    with models_shown(FACTORIES, stream, **more) as shown:
        shown.begun(0)
        shown.heard(0, Event("unit_finished", "piece_0", 1.5, 1, 2, {"action": "compiled"}))
        shown.heard(0, Event("phase_started", "prove"))
        with shown.ended(0):
            stream.write("<the first>\n")
        shown.begun(1)
        with shown.ended(1):
            stream.write("<the second>\n")


def test_lines_name_the_model_and_its_place() -> None:
    stream = io.StringIO()
    show(stream)
    assert stream.getvalue().splitlines() == [
        "[1/2] shop.search:encoder: starting",
        "[1/2] shop.search:encoder:   [1/2] piece_0 1.50 s",
        "[1/2] shop.search:encoder: prove",
        "<the first>",
        "[2/2] shop.rank:model: starting",
        "<the second>",
    ]


def test_a_terminal_has_a_line_for_each_model_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    show(stream)
    before, _, after = stream.getvalue().partition("<the first>")
    assert "shop.search:encoder  prove" in before
    assert "1 compiled" in before
    assert "shop.rank:model  waiting" in before
    assert "shop.search:encoder" not in after
    assert "shop.rank:model  starting" in after


def test_what_came_of_a_model_is_printed_on_lines_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    show(stream)
    for told in ("<the first>", "<the second>"):
        before = stream.getvalue().partition(told)[0]
        assert before.endswith(("\x1b[2K", "\x1b[?25h", "\r")), repr(before[-40:])


def test_nothing_is_shown_where_that_is_asked_for() -> None:
    stream = Terminal()
    show(stream, quiet=True)
    assert stream.getvalue() == "<the first>\n<the second>\n"
