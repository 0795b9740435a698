"""Programs that run op by op, and the code that was generated for them."""

from __future__ import annotations

import re
from typing import Any

import hotstart


def build(model: Any, *args: Any, **more: Any) -> hotstart.Program:
    return hotstart.compile(model, args, **more, options=hotstart.Options(compiler="op_by_op"))


def code(program: hotstart.Program) -> str:
    """All stitched code, without what differs between versions of torch and Python."""
    text = "\n".join(program.code.values())
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
