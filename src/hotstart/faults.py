"""Exceptions of torch's internals and wrong types of arguments, as errors of `hotstart.errors`.

An exception that the user's own code raises, while it is traced or called back, is the user's and
passes as it is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hotstart.errors import HotstartError, OptionsError

_OWN = str(Path(__file__).parent) + os.sep
_NEUTRAL = ("sympy", "mpmath", "numpy", "msgspec")
"""Packages that torch and hotstart call; an exception of theirs is of whoever called them."""


@contextlib.contextmanager
def typed(make: Callable[[str], HotstartError]) -> Iterator[None]:
    """Raise what `make` makes of a description in place of an exception that is not the user's.

    `MemoryError` passes.
    """
    try:
        yield
    except (HotstartError, MemoryError):
        raise
    except Exception as error:
        frames = list(traceback.walk_tb(error.__traceback__))
        if _whose(frames) == "user":
            raise
        theirs = [(f, line) for f, line in _below(frames) if _owner(f) == "user"]
        lines = [f", at {f.f_code.co_filename}:{line} in {f.f_code.co_name}" for f, line in theirs]
        where = lines[-1] if lines else ""
        reason = " ".join(str(error).split()) or "no reason given"
        raise make(f"{type(error).__qualname__}: {reason}{where}") from error


def defect(what: str) -> Callable[[str], HotstartError]:
    """The error of a stage that must not fail, given its name."""
    return lambda reason: HotstartError(
        f"{what} failed: {reason}. This is a defect of hotstart; please report it with the "
        "traceback. Options(compiler='op_by_op') may go around it."
    )


def path_of(name: str, value: Any) -> str:
    """A path that a user gave for a file or folder, as text.

    Raises:
        OptionsError: it is none.
    """
    if not isinstance(value, str | os.PathLike):
        raise OptionsError(f"{name}: got a {type(value).__qualname__}, takes a path")
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise OptionsError(f"{name}: got {path!r}, takes a path as text")
    return path


Frames = list[tuple[FrameType, int]]
"""The frames of a traceback with their lines, outermost first."""


def _below(frames: Frames) -> Frames:
    """The frames that hotstart called, without those that called hotstart."""
    first = next((n for n, (frame, _) in enumerate(frames) if _owner(frame) == "hotstart"), 0)
    return frames[first:]


def _whose(frames: Frames) -> str:
    """Whose code raised: the innermost that is no library that others call."""
    owners = (_owner(frame) for frame, _ in reversed(frames))
    return next((owner for owner in owners if owner), "hotstart")


def _owner(frame: FrameType) -> str:
    """`"hotstart"`, `"torch"`, `"user"`, or nothing for code that others call."""
    file = frame.f_code.co_filename
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if file.startswith(_OWN):
        return "hotstart"
    if package in ("torch", "functorch"):
        return "torch"
    neutral = package in _NEUTRAL or package in sys.stdlib_module_names
    return "" if neutral and package != "__main__" else "user"
