"""The fixture `kept_pieces`: what Inductor made of a piece is read back by later builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hotstart
from tests.conftest import keeping


@pytest.mark.thorough
def test_a_piece_is_compiled_once(tmp_path: Path) -> None:
    with keeping(tmp_path):
        model, args = torch.nn.Tanh().eval(), (torch.ones(3),)
        first, again = (hotstart.compile(model, args) for _ in range(2))
    assert [unit.action for unit in first.report.units] == ["compiled"]
    assert [unit.action for unit in again.report.units] == ["loaded"]
