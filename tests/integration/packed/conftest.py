"""A model with linears, and its program on packed weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import hotstart
from tests.conftest import keeping
from tests.integration.packed.models import ALWAYS, ROWS, Mlp


@pytest.fixture
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return Mlp().eval()


@pytest.fixture(scope="session")
def mlp_file(tmp_path_factory: pytest.TempPathFactory, pieces_folder: Path) -> Path:
    """The program of the model, in a file: most tests load it, one looks at how it is built."""
    file = tmp_path_factory.mktemp("mlp") / "model.hot"
    with keeping(pieces_folder):
        program = hotstart.compile(
            Mlp().eval(), (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS
        )
    program.save(file, check=False)
    return file


@pytest.fixture
def program(mlp: nn.Module, mlp_file: Path) -> hotstart.Program:
    """The program of `mlp`, whose weights are packed."""
    return hotstart.load(mlp_file, mlp)
