"""Compile a PyTorch model once, ahead of time; start it hot everywhere."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotstart._api import compile
    from hotstart.errors import (
        CaptureError,
        CompileError,
        ContractError,
        HotstartError,
        ModelMismatch,
        OptionsError,
        PartitionError,
        RangeError,
    )
    from hotstart.options import Options
    from hotstart.runtime.program import Program
    from hotstart.shapes import Dim

__all__ = [
    "CaptureError",
    "CompileError",
    "ContractError",
    "Dim",
    "HotstartError",
    "ModelMismatch",
    "Options",
    "OptionsError",
    "PartitionError",
    "Program",
    "RangeError",
    "compile",
]

# Names are imported when they are first asked for, so that the command line and everything else
# that needs no torch starts without it.
_HOMES = {
    "compile": "hotstart._api",
    "Dim": "hotstart.shapes",
    "Options": "hotstart.options",
    "Program": "hotstart.runtime.program",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hotstart' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES.get(name, "hotstart.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
