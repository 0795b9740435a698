"""Models with linears, and measurements that are the same on every machine."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hotstart import Dim, Options
from hotstart.compilers import Job
from hotstart.records.artifact import CompiledUnit
from tests.conftest import keeping

PROVEN = Options(tune=True)
TUNED = Options(tune=True, prove="off")
"""For tests that compare results with the model's, which is what a proof would do again."""

ROWS = {"x": {0: Dim("rows", min=1, max=64)}}


class Mlp(nn.Module):
    def __init__(self, wide: int = 48, width: int = 32) -> None:
        super().__init__()
        self.up = nn.Linear(width, wide)
        self.down = nn.Linear(wide, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(x)))


def measured(
    job: Job, units: Sequence[CompiledUnit], points: Sequence[Mapping[str, int]]
) -> list[tuple[float, ...]]:
    """Times that are the same on every machine: the template is faster up to 16 rows."""
    template = [1.0 if prod(sizes.values()) <= 16 else 3.0 for sizes in points]
    return [(time, *(2.0 + n for n in range(len(units) - 1))) for time in template]


@contextlib.contextmanager
def deciding(measure: Any, folder: Path) -> Iterator[None]:
    """Decide the measurement; a busy machine decides it otherwise every time.

    Pieces are kept, between runs too, in a folder for this measurement alone, as its file has it.
    """
    here = hashlib.sha256(Path(inspect.getfile(measure)).read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch, keeping(folder / here):
        patch.setattr("hotstart.compilers.choose.measured", measure)
        yield


def measured_once(
    job: Job, units: Sequence[CompiledUnit], points: Sequence[Mapping[str, int]]
) -> list[tuple[float, ...]]:
    """Times of which the template's are the best everywhere."""
    return [(1.0, *(2.0 + n for n in range(len(units) - 1)))]


class Position(nn.Module):
    """A cache whose position every call moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 32)
        self.register_buffer("kept", torch.zeros(4, 32))
        self.register_buffer("position", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).relu()
        self.kept.index_copy_(0, self.position, y[:1])
        self.position.add_(1)
        return y + self.kept.sum(0)


class Step(nn.Module):
    """A lookup by a number that not every input gives."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 32)
        self.steps = nn.Embedding(10, 32)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return self.up(x).relu() + self.steps((step * 10).long())


class Sevens(nn.Module):
    """Decides by a condition that no power of two meets."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).relu()
        return y * 2 if x.shape[0] % 7 == 0 else y


class Mixed(nn.Module):
    """A weight of a linear that the template computes, and of one that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 32)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.up(y.t()).sin(), self.up(x).cos()
