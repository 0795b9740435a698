"""Show the progress of a build on a terminal, or as lines in a log."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import TextIO

from hotstart.events import Event, Listener

WORTH_A_LINE_S = 0.1
"""Units that took less are left out of a log, which reused ones would fill."""

MOST_LETTERS = 60
"""Bound on the description of what is being done."""


@contextlib.contextmanager
def progress(stream: TextIO) -> Iterator[Listener]:
    """Make a listener that shows a build's progress on `stream` while the context lasts.

    It draws a bar if `stream` is a terminal and rich is installed, and prints lines otherwise.
    """
    bar = _bar(stream) if stream.isatty() else None
    if bar is None:
        yield Lines(stream)
    else:
        with bar as listener:
            yield listener


class Lines:
    """Prints each phase once, each unit that took a while, and each variant."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phases: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Print a line if the event is worth one."""
        line = self._line(event)
        if line is not None:
            print(line, file=self._stream, flush=True)

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
            case _:
                return None


def described(event: Event) -> str:
    """What is being done: a phase, or a piece with the layers and the sizes that it serves."""
    parts = (event.name, event.detail.get("layers", ""), event.detail.get("variant", ""))
    text = "  ".join(filter(None, parts))
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."


def _bar(stream: TextIO) -> contextlib.AbstractContextManager[Listener] | None:
    try:
        import rich.console
        import rich.progress as parts
    except ImportError:
        return None

    @contextlib.contextmanager
    def shown() -> Iterator[Listener]:
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
        console = rich.console.Console(file=stream)
        with parts.Progress(*columns, console=console, transient=True) as drawn:
            task = drawn.add_task("starting", total=None, made="")
            actions: Counter[str] = Counter()

            def listen(event: Event) -> None:
                if event.kind in ("phase_started", "unit_started"):
                    drawn.update(task, description=described(event))
                if event.kind == "unit_finished" and "action" in event.detail:
                    actions[event.detail["action"]] += 1
                    made = ", ".join(f"{count} {action}" for action, count in actions.items())
                    drawn.update(task, made=made)
                if event.total:
                    drawn.update(task, completed=event.done, total=event.total)

            yield listen

    return shown()
