"""Find the lines of the user's code that nodes were traced from."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx

from hotstart._torch.in_between import in_between


def without_folders(line: str) -> str:
    """Leave out of `line_of` where a library is installed, which must not get into a program."""
    return re.sub(r"^.*?/(?=[^/]+:\d+ in )", "", line)


def line_of(node: fx.Node) -> str:
    """The user's file, line and source that a node was traced from; may be empty."""
    return user_line(_stack_of(node))


def frame_of(node: fx.Node) -> traceback.FrameSummary | None:
    """The same as a frame, if there is one."""
    frame: traceback.FrameSummary | None = user_frame(_stack_of(node))
    return frame


def _stack_of(node: fx.Node) -> list[traceback.FrameSummary]:
    frames = re.findall(
        r'File "(.+?)", line (\d+), in (\S+)\n\s*(.*)', node.meta.get("stack_trace") or ""
    )
    return [traceback.FrameSummary(f, int(n), name, line=line) for f, n, name, line in frames]


def user_frame(stack: Sequence[Any]) -> Any:
    """The innermost frame of a stack that is not torch's own; None if there is no stack."""
    own = str(Path(torch.__file__).parent)
    theirs = [frame for frame in stack if not frame.filename.startswith(own)]
    return (theirs or stack)[-1] if stack else None


def user_line(stack: Sequence[Any]) -> str:
    """The innermost line of a stack that is not torch's own, as text."""
    frame = user_frame(stack)
    if frame is None:
        return ""
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"


@contextlib.contextmanager
def guards_name_users_lines() -> Iterator[None]:
    """Have guards on sizes name the user's line first where a module or function of torch's asked.

    `ShapeEnv._get_sloc` (2.11 to 2.15) takes the innermost line of what is traced, which is that of
    `nn.Linear` rather than of the model that calls it; torch has no hook for it.
    """
    from torch._guards import SLoc, TracingContext
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
    from torch.utils._traceback import format_frame

    def located(get: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        found = get(*args, **kwargs)
        stack = TracingContext.extract_stack()
        frame = user_frame(stack)
        if frame is None or frame is stack[-1]:
            return found
        return SLoc(format_frame(stack[-1]), format_frame(frame, line=True))

    with in_between(ShapeEnv, "_get_sloc", located):
        yield
