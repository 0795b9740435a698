"""A model with linears, and its program on packed weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hotstart
from tests.integration.packed.models import ALWAYS, ROWS, Mlp


@pytest.fixture
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return Mlp().eval()


@pytest.fixture
def program(mlp: nn.Module) -> hotstart.Program:
    return hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS)
