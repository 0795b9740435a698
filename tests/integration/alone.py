"""Programs in files, and the same code on one in processes with torch and without it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from tests.processes import run_fresh, run_with_torch

_START = """
import json, logging, sys
import numpy as np
import hotstart
from tests.integration.plain_records import Pair, Settings, State

WITH_TORCH = sys.argv[3] == "torch"
if WITH_TORCH:
    import torch
else:
    reasons = []
    class Keep(logging.Handler):
        def emit(self, record): reasons.append(record.getMessage())
    logging.getLogger("hotstart").addHandler(Keep())
    logging.getLogger("hotstart").setLevel("INFO")

def array(values, dtype="float32"):
    made = np.array(values, dtype=dtype)
    return torch.from_numpy(made) if WITH_TORCH else made

def plain(value):
    "A value as JSON, with tensors and arrays by their bits."
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if type(value).__module__ == "hotstart.runtime.results" or isinstance(value, (State, Settings)):
        return [type(value).__name__, plain(vars(value))]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(plain, value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if WITH_TORCH and value.dtype is torch.bfloat16:
        value = value.view(torch.uint16)
    elif not WITH_TORCH and getattr(value, "dtype", "") == "bfloat16":
        value = value.bits()
    made = np.asarray(value)
    return [str(made.dtype), list(made.shape), list(made.strides), made.tobytes().hex()]

def tried(call, *args, **kwargs):
    "What a call gives, or the error that it raises."
    try:
        return plain(call(*args, **kwargs))
    except Exception as error:
        return [type(error).__name__, str(error)]

program = hotstart.load(sys.argv[1], weights=sys.argv[2])
if not WITH_TORCH:
    assert type(program).__name__ == "TorchFreeProgram", reasons
found = []
"""

_END = """
if not WITH_TORCH:
    assert "torch" not in sys.modules
print(json.dumps(found))
"""


_LOADED = """
import json, sys
import hotstart
program = hotstart.load(sys.argv[1], weights=sys.argv[2])
"""
_FOUND = """
print(json.dumps(found))
"""


class Saved:
    """A program in a file, with prepared weights."""

    def __init__(self, folder: Path, model: nn.Module, *args: Any, **given: Any) -> None:
        self.file, self.weights = folder / "model.hot", folder / "model.weights"
        given.setdefault("options", Options(form="native", pack_weights="always"))
        self.program = hotstart.compile(model.eval(), args, **given)
        self.program.save(self.file, check=False)
        self.program.save_weights(self.weights)

    def run(self, code: str, kind: str) -> Any:
        """Run code in another process, where `program` is loaded; what is in `found` then.

        Args:
            code: what to run.
            kind: "alone" for a fresh process that never imports torch, "torch" for one that has.
        """
        run = run_with_torch if kind == "torch" else run_fresh
        return run(f"{_START}{dedent(code)}{_END}", self.file, self.weights, kind)

    def without_torch(self, code: str, **environment: str) -> Any:
        """Run code in a fresh process, where `program` is loaded; what it sets `found` to.

        Nothing but hotstart is imported before.
        """
        return run_fresh(f"{_LOADED}{dedent(code)}{_FOUND}", self.file, self.weights, **environment)

    def same(self, code: str) -> Any:
        """Require that code finds the same with torch and without; what it finds."""
        found = self.run(code, "alone")
        expected = self.run(code, "torch")
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert one == other, f"entry {number}: {one} without torch, {other} with it"
        return found


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16, bias=False)
        self.register_buffer("table", torch.randn(16), persistent=False)

    def forward(
        self, ids: Tensor, mask: Tensor, scale: float = 1.0, *, flat: bool = False
    ) -> dict[str, Any]:
        x = self.embed(ids) * self.table.cos()
        x = x + self.down(nn.functional.gelu(self.up(x)))
        pooled = (x * mask.unsqueeze(-1)).sum(1) * scale
        return {"pooled": pooled, "all": (x, mask), "length": ids.shape[1], "flat": flat}


class Conjugating(nn.Module):
    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.nn.functional.gelu(x) * 2, z.conj()


IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
ROWS, LENGTH = Dim("rows", min=1, max=4), Dim("seq", min=1, max=9, sizes=[1])
SHAPES = {"ids": {0: ROWS, 1: LENGTH}, "mask": {0: ROWS, 1: LENGTH}}
