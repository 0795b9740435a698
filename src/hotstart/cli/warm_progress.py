"""Show the progress of many models that are compiled: a line for each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TextIO

from hotstart.cli.progress import Bar, Lines, drawing_on
from hotstart.events import Event


class Shown(Protocol):
    """Is told what becomes of factories, which go by their places on the command line."""

    def begun(self, place: int) -> None:
        """Show that one runs now."""

    def heard(self, place: int, event: Event) -> None:
        """Show what its build does."""

    def ended(self, place: int) -> contextlib.AbstractContextManager[None]:
        """Show that one has ended; what came of it is printed while the context lasts."""


@contextlib.contextmanager
def models_shown(factories: Sequence[str], stream: TextIO, quiet: bool = False) -> Iterator[Shown]:
    """Show on `stream` what becomes of factories, while the context lasts.

    On a terminal each that waits or runs has a line, if rich is installed; elsewhere the lines of
    all begin with their places and names.

    Args:
        factories: their names.
        stream: where that is shown.
        quiet: whether nothing is shown.
    """
    drawing = None if quiet else drawing_on(stream)
    if quiet:
        yield Quiet()
    elif drawing is None:
        yield ModelLines(factories, stream)
    else:
        with drawing:
            yield ModelBars(factories, drawing)


class Quiet:
    """Shows nothing."""

    def begun(self, place: int) -> None:
        """Do nothing."""

    def heard(self, place: int, event: Event) -> None:
        """Do nothing."""

    def ended(self, place: int) -> contextlib.AbstractContextManager[None]:
        """Do nothing."""
        return contextlib.nullcontext()


class ModelLines:
    """Prints what each build does."""

    def __init__(self, factories: Sequence[str], stream: TextIO) -> None:
        count = len(factories)
        self._lines = [
            Lines(stream, f"[{number}/{count}] {factory}: ")
            for number, factory in enumerate(factories, 1)
        ]

    def begun(self, place: int) -> None:
        """Print that it starts."""
        self._lines[place].say("starting")

    def heard(self, place: int, event: Event) -> None:
        """Print a line if the event is worth one."""
        self._lines[place](event)

    def ended(self, place: int) -> contextlib.AbstractContextManager[None]:
        """Do nothing: what came of it is a line, too."""
        return contextlib.nullcontext()


class ModelBars:
    """Draws a line for each factory that waits or runs: what it does, and how far it is."""

    def __init__(self, factories: Sequence[str], drawing: Any) -> None:
        self._drawing = drawing
        self._bars = [Bar(drawing, factory, waits=True) for factory in factories]

    def begun(self, place: int) -> None:
        """Let its clock run."""
        self._bars[place].begin()

    def heard(self, place: int, event: Event) -> None:
        """Show what it does."""
        self._bars[place](event)

    @contextlib.contextmanager
    def ended(self, place: int) -> Iterator[None]:
        """Remove its line, and leave the terminal to what came of it."""
        self._bars[place].remove()
        self._drawing.stop()
        try:
            yield
        finally:
            if self._drawing.tasks:
                self._drawing.start()
