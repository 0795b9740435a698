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

_RESUMED = r"^torch_dynamo_resume_in_(.+)_at_\d+$"
"""Names that Dynamo gives the rest of a function after a graph break (2.11 to 2.15)."""


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


def line_being_compiled() -> str:
    """The user's line that Inductor lowers, or AOTAutograd traces, right now; may be empty.

    `V.graph.current_node` and `get_current_meta` (2.11 to 2.15) have the node: a guard names the
    line of torch that asked for a size.
    """
    from torch._inductor.virtualized import V

    lowered = getattr(V.graph, "current_node", None)
    meta = fx.traceback.get_current_meta() if lowered is None else lowered.meta
    return user_line(_frames(meta.get("stack_trace")))


def _stack_of(node: fx.Node) -> list[traceback.FrameSummary]:
    return _frames(node.meta.get("stack_trace"))


def _frames(stack_trace: str | None) -> list[traceback.FrameSummary]:
    frames = re.findall(r'File "(.+?)", line (\d+), in (\S+)\n\s*(.*)', stack_trace or "")
    return [traceback.FrameSummary(f, int(n), name, line=line) for f, n, name, line in frames]


_OWN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
"""Folders of torch and of hotstart, some of whose functions are traced in place of torch's."""


def user_frame(stack: Sequence[Any]) -> Any:
    """The innermost frame of a stack that is the user's own; None if there is no stack."""
    theirs = [frame for frame in stack if not frame.filename.startswith(_OWN)]
    return (theirs or stack)[-1] if stack else None


def user_line(stack: Sequence[Any]) -> str:
    """The innermost line of a stack that is the user's own, as text."""
    frame = user_frame(stack)
    if frame is None:
        return ""
    name = re.sub(_RESUMED, r"\1", frame.name)
    return f"{frame.filename}:{frame.lineno} in {name}: {frame.line}"


@contextlib.contextmanager
def guards_name_users_lines() -> Iterator[None]:
    """Have guards on sizes name the user's line, also where a module of torch's asked.

    `ShapeEnv._get_sloc` (2.11 to 2.15) takes the innermost line of what is traced, which is that of
    `nn.Linear` rather than of the model that calls it; torch has no hook for it.
    """
    from torch._guards import SLoc, TracingContext
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    def located(get: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        found = get(*args, **kwargs)
        line = user_line(TracingContext.extract_stack())
        return SLoc(found.framework_loc, line) if line else found

    with in_between(ShapeEnv, "_get_sloc", located):
        yield
