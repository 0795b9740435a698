"""Record the Python code that runs below a trace."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def recording_code(codes: set[types.CodeType]) -> Iterator[None]:
    """Collect the code of the Python functions that are called in this thread.

    Without that of tracing itself: torch, and sympy with what it needs.
    """
    named = (importlib.import_module(name) for name in ("torch", "sympy", "mpmath"))
    folders = tuple(f"{Path(str(module.__file__)).parent}{os.sep}" for module in named)
    before: Any = sys.getprofile()

    def called(frame: types.FrameType, event: str, _arg: Any) -> None:
        code = frame.f_code
        if event != "call" or code in codes or code.co_filename.startswith(("<", *folders)):
            return
        if not _is_importing(frame):
            codes.add(code)

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)
        if hasattr(before, "enable"):  # of cProfile, which cannot be set
            before.enable()
        else:
            sys.setprofile(before)


def _is_importing(frame: types.FrameType | None) -> bool:
    """Tell whether a frame is run by an import, which the next process may have done before."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
