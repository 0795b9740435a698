"""Find lines of the user's code in the stacks that torch keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


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
