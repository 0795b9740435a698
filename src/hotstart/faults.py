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
from typing import Any, get_args

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


def require(
    name: str,
    value: object,
    kind: type | tuple[type, ...],
    takes: str,
    error: type[HotstartError] = OptionsError,
) -> None:
    """Raise an error unless an argument is of a type that is taken."""
    if not isinstance(value, kind):
        raise error(f"{name}: got a {type(value).__qualname__}, takes {takes}")


def require_one_of(
    name: str, value: object, choices: Any, error: type[HotstartError] = OptionsError
) -> None:
    """Raise an error unless an argument is one of the values of a `Literal`."""
    if value not in get_args(choices):
        raise error(f"{name}: got {value!r}, takes one of {get_args(choices)}")


def path_of(name: str, value: Any, error: type[HotstartError] = OptionsError) -> str:
    """A path that a user gave for a file or folder, as text; an error if it is none."""
    require(name, value, (str, os.PathLike), "a path", error)
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise error(f"{name}: got {path!r}, takes a path as text")
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
