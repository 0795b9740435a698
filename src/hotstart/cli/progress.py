"""Show the progress of a build on a terminal, or as lines in a log."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, TextIO

from hotstart.events import Event, Listener

WORTH_A_LINE_S = 0.1
"""Units that took less are left out of a log, which reused ones would fill."""

_BAR_WIDTH = 20


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
                layers = event.detail.get("layers", "")
                named = f"{event.name} ({layers})" if layers else event.name
                return f"  {count}{named} {event.seconds:.2f} s"
            case "variant_finished":
                return f"  variant {event.name} {event.seconds:.2f} s"
            case "variant_checked" if event.detail["step"] == "compared":
                return f"  checked {event.name}"
            case _:
                return None


def described(event: Event) -> str:
    """Name what is done: a piece with the layers and sizes it serves, or a check."""
    detail = event.detail
    parts = (event.name, detail.get("layers"), detail.get("variant"), detail.get("step"))
    return "  ".join(filter(None, parts))


def clock_text(seconds: float) -> str:
    """Write seconds as `1:02`, or as `1:00:02` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def drawing_on(stream: TextIO) -> Any:
    """Make what draws bars on a terminal, as of rich; None where lines are to be printed."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        import rich.console
        import rich.progress as parts
        from rich.text import Text
    except ImportError:
        return None

    class Times(parts.ProgressColumn):
        """The time that passed, and that is expected to be left."""

        def render(self, task: parts.Task) -> Text:
            if task.elapsed is None:  # it waits
                return Text("")
            passed, ends = clock_text(task.elapsed), task.fields["ends"]
            rest = 0.0 if ends is None else max(ends - task.get_time(), 0.0)
            left = "" if ends is None else f", about {clock_text(rest)} left"
            return Text(f"{passed}{left}", style="progress.elapsed")

    class Drawing(parts.Progress):
        """Two lines for each task: how far it is, and what it does right now."""

        def get_renderables(self) -> Iterator[Any]:
            for task in self.tasks:
                yield self.make_tasks_table([task])
                if task.fields["doing"]:
                    doing = f"  {task.fields['doing']}"
                    yield Text(doing, style="dim", no_wrap=True, overflow="ellipsis")

    columns = (
        parts.SpinnerColumn(),
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(_BAR_WIDTH),
        parts.TextColumn("{task.fields[count]}"),
        parts.TextColumn("{task.fields[made]}"),
        Times(),
    )
    console = rich.console.Console(file=stream)  # without colours where NO_COLOR is set
    return Drawing(*columns, console=console, transient=True)


class Bar:
    """Shows the events of a build in a drawing: its phase, how far it is, and the current piece.

    Args:
        drawing: of `drawing_on`.
        name: what is built, before what is done.
        waits: whether it is not begun yet.
    """

    def __init__(self, drawing: Any, name: str = "", waits: bool = False) -> None:
        self._drawing = drawing
        self._name = name
        self._actions: Counter[str] = Counter()
        self._compiling_since: float | None = None
        begin = self._text("waiting" if waits else "starting")
        self._task = drawing.add_task(
            begin, total=None, count="", made="", doing="", ends=None, start=not waits
        )

    def begin(self) -> None:
        """Let its clock run."""
        self._drawing.start_task(self._task)
        self._drawing.update(self._task, description=self._text("starting"), refresh=True)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        update = partial(self._drawing.update, self._task)
        match event.kind:
            case "phase_started":  # which may be over before the next refresh
                update(description=self._text(event.name), refresh=True)
            case "unit_started":
                self._compiling_since = self._compiling_since or self._drawing.get_time()
                update(doing=described(event))
            case "variant_checked":
                update(doing=described(event))
            case "unit_finished" if "action" in event.detail:
                self._actions[event.detail["action"]] += 1
                made = ", ".join(f"{count} {action}" for action, count in self._actions.items())
                update(made=made, ends=self._expected_end(int(event.detail.get("unmade", 0))))
            case "variant_finished":
                update(doing="")
        if event.total:
            count = f"{event.done}/{event.total}"
            update(completed=event.done, total=event.total, count=count)

    def _expected_end(self, unmade: int) -> float | None:
        """Expect each of the units to be made to take what those before took; None if unknown."""
        made = self._actions.total() - self._actions["reused"]
        if not made or not unmade or self._compiling_since is None:
            return None
        now: float = self._drawing.get_time()
        return now + unmade * (now - self._compiling_since) / made

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
