"""Find lines of the user's code in the stacks that torch keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def user_line(stack: Sequence[Any]) -> str:
    """The innermost line of a stack that is not torch's own, as text."""
    own = str(Path(torch.__file__).parent)
    theirs = [frame for frame in stack if not frame.filename.startswith(own)]
    if not stack:
        return ""
    frame = (theirs or stack)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
