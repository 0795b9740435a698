"""What several tests of compilers share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Options
from hotstart.compilers import Job
from tests.unit.compilers.taken_jobs import taken_jobs


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin().sort()[0].cos().sort()[0].exp().sort()[0].tanh()


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Four different ones, for the op-by-op compiler."""
    given = (torch.randn(2),)
    options = Options(compiler="op_by_op")
    found = taken_jobs(
        monkeypatch,
        lambda: hotstart.compile(Steps(), given, split_on=["aten::sort"], options=options),
    )
    assert len(found) == 4
    return found
