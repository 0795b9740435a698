"""Show the progress of a build on a terminal, or as lines in a log."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

from hotstart.events import Event, Listener

WORTH_A_LINE_S = 0.1
"""Units that took less are left out of a log, which reused ones would fill."""

MOST_LETTERS = 60
"""Bound on the description of what is being done."""


@contextlib.contextmanager
def progress(stream: TextIO, quiet: bool = False) -> Iterator[Listener]:
    """Make a listener that shows a build's progress on `stream` while the context lasts.

    It draws a bar if `stream` is a terminal and rich is installed, and prints lines otherwise.

    Args:
        stream: where that is shown.
        quiet: whether nothing is shown.
    """
    bar = None if quiet else _bar(stream)
    if quiet:
        yield lambda event: None
    elif bar is None:
        yield Lines(stream)
    else:
        with bar as listener:
            yield listener


class Lines:
    """Prints each phase once, each unit that took a while, and each variant.

    Args:
        stream: where to.
        prefix: begins every line.
    """

    def __init__(self, stream: TextIO, prefix: str = "") -> None:
        self._stream = stream
        self._prefix = prefix
        self._phases: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Print a line if the event is worth one."""
        line = self._line(event)
        if line is not None:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line."""
        print(f"{self._prefix}{line}", file=self._stream, flush=True)

    def _line(self, event: Event) -> str | None:
        match event.kind:
            case "phase_started" if event.name not in self._phases:
                self._phases.add(event.name)
                return event.name
            case "unit_finished" if event.seconds >= WORTH_A_LINE_S:
                count = f"[{event.done}/{event.total}] " if event.total else ""
                return f"  {count}{event.name} {event.seconds:.2f} s"
            case "variant_finished":
                return f"  variant {event.name} {event.seconds:.2f} s"
            case "variant_checked" if event.detail["step"] == "compared":
                return f"  checked {event.name}"
            case _:
                return None


def described(event: Event) -> str:
    """Say what is done: a phase, a piece with the layers and sizes it serves, or a check."""
    detail = event.detail
    parts = (event.name, detail.get("layers"), detail.get("variant"), detail.get("step"))
    text = "  ".join(filter(None, parts))
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."


def drawing_on(stream: TextIO) -> Any:
    """Make what draws bars on a terminal, as of rich; None where lines are to be printed."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        import rich.console
        import rich.progress as parts
    except ImportError:
        return None
    columns = (
        parts.SpinnerColumn(),
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TextColumn("{task.fields[made]}"),
        parts.TimeElapsedColumn(),
        parts.TextColumn("left"),
        parts.TimeRemainingColumn(),  # by how long the pieces took that are done
    )
    console = rich.console.Console(file=stream)  # without colours where NO_COLOR is set
    return parts.Progress(*columns, console=console, transient=True)


class Bar:
    """Shows the events of a build in a line of a drawing.

    Args:
        drawing: of `drawing_on`.
        name: what is built, before what is done.
        waits: whether it is not begun yet.
    """

    def __init__(self, drawing: Any, name: str = "", waits: bool = False) -> None:
        self._drawing = drawing
        self._name = name
        self._actions: Counter[str] = Counter()
        begin = self._text("waiting" if waits else "starting")
        self._task = drawing.add_task(begin, total=None, made="", start=not waits)

    def begin(self) -> None:
        """Let its clock run."""
        self._drawing.start_task(self._task)
        self._drawing.update(self._task, description=self._text("starting"), refresh=True)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.kind in ("phase_started", "unit_started", "variant_checked"):
            begun = event.kind == "phase_started"  # which may be over before the next refresh
            text = self._text(described(event))
            self._drawing.update(self._task, description=text, refresh=begun)
        if event.kind == "unit_finished" and "action" in event.detail:
            self._actions[event.detail["action"]] += 1
            made = ", ".join(f"{count} {action}" for action, count in self._actions.items())
            self._drawing.update(self._task, made=made)
        if event.total:
            self._drawing.update(self._task, completed=event.done, total=event.total)

    def remove(self) -> None:
        """Remove its line."""
        self._drawing.remove_task(self._task)

    def _text(self, what: str) -> str:
        return "  ".join(filter(None, (self._name, what)))


def _bar(stream: TextIO) -> contextlib.AbstractContextManager[Listener] | None:
    drawing = drawing_on(stream)
    if drawing is None:
        return None

    @contextlib.contextmanager
    def shown() -> Iterator[Listener]:
        with drawing:
            yield Bar(drawing)

    return shown()
