"""Print to a reader that may go away, as `head` does: that is no error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import msgspec

from hotstart.artifact import disk
from hotstart.errors import ArtifactError


def say(text: object, stream: TextIO | None = None) -> None:
    """Print to stdout or another stream, with control characters escaped.

    Args:
        text: the text; it may hold what a file says, whoever wrote that.
        stream: the stream; None: stdout.
    """
    with contextlib.suppress(BrokenPipeError):
        print(_printable(str(text)), file=stream or sys.stdout, flush=True)


_stdout: ContextVar[TextIO | None] = ContextVar("stdout", default=None)
"""The stdout of the process, while `json_alone` has put stderr in its place."""


@contextlib.contextmanager
def json_alone() -> Iterator[None]:
    """Leave stdout to `say_json`; what else is printed, by the user's code say, goes to stderr."""
    token = _stdout.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout.reset(token)


def say_json(value: Any) -> None:
    """Print a value, which may hold records, as JSON to stdout."""
    say(json.dumps(msgspec.to_builtins(value), indent=2), _stdout.get())


def tell(given: Namespace, value: Any, *lines: str) -> None:
    """Print what came of a command: a value if it was asked for with `--json`, else lines."""
    if given.json:
        say_json(value)
        return
    for line in lines:
        say(line)


def flush() -> None:
    """Flush both streams, so that the interpreter reports no error when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _printable(text: str) -> str:
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def write_page(place: Path, page: str) -> None:
    """Write a page of HTML, and say so on stderr.

    Raises:
        ArtifactError: it cannot be written.
    """
    disk.write(place, [page.encode()])
    say(f"wrote {place}", sys.stderr)


def require_place(output: Path, done: str) -> None:
    """Check that a file can be written, before anything that takes long.

    Args:
        output: the file.
        done: what was not done yet, such as "built".

    Raises:
        ArtifactError: it cannot.
    """
    try:
        if output.is_dir():
            raise IsADirectoryError(None, "a folder of that name")
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise ArtifactError(
            f"{output}: expected a place that can be written, found: {error.strerror or error}. "
            f"Nothing was {done}; give a file in a folder that exists and can be written to."
        ) from error
