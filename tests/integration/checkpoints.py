"""What tests of programs with a checkpoint share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import hotstart

EAGER = hotstart.Options(compiler="op_by_op")
X = torch.randn(3, 8)


def saved(model: nn.Module, file: Path, *args: Any, **given: Any) -> Path:
    program = hotstart.compile(model.eval(), args or (X,), **{"options": EAGER, **given})
    program.save(file, check=given.get("options") is None)
    return file
