"""A model, the commands around its file, and ways to run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hotstart
from hotstart.artifact import container, disk
from hotstart.cli import main

MODULE = "model_of_the_cli_tests"
SOURCE = """
import dataclasses
import enum
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class Mode(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class State:
    hidden: Tensor
    scale: float = 0.5


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(
        self, x, /, masks, pair, *rest, mode=Mode.FAST, size=(1, 2), dtype=torch.float32,
        state, total, scale=2.5, factors=(),
    ):
        self.calls.add_(1)
        for block in self.blocks:
            x = x + torch.relu(block(x))
        total.add_(1)
        x = x * scale + masks["first"].to(dtype) + pair.a + state.hidden * state.scale + rest[0]
        return x, pair.b * 2


def make():
    args = (
        torch.zeros(3, 8),
        {"first": torch.ones(8, dtype=torch.bool)},
        Pair(torch.zeros(8), torch.zeros(4, 2).t()),
        torch.zeros(8),
    )
    return Model().eval(), args, {"state": State(torch.zeros(8)), "total": torch.zeros(8)}


def narrow():
    raise SystemExit("the model was made")
"""


@dataclass(frozen=True)
class Folder:
    """A working folder with a model, two keys, and artifacts of the model."""

    path: Path
    plain: Path
    signed: Path
    public: str


def written(file: Path) -> dict[str, Any]:
    """The manifest of a file, as JSON says it."""
    found: dict[str, Any] = json.loads(container.read_manifest(file))
    return found


def write(file: Path, manifest: dict[str, Any]) -> Path:
    disk.write(file, container.file_parts(manifest, {}))
    return file


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command in this process."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def run_apart(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(hotstart.__file__).parents[1])},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )
