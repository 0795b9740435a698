"""`hotstart.bisect`: the first piece that departs from eager mode, by planting faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, Program
from hotstart.cli import main
from hotstart.errors import OptionsError
from hotstart.runtime.code.generated import unit_code
from hotstart.saving import checked_parts

EAGER = Options(compiler="op_by_op")
X = torch.linspace(-2, 2, 24).view(3, 8)
ROWS = {"x": {0: Dim("rows", min=1, max=8)}}


class Block(nn.Module):
    """A layer; each of another width, so that no two pieces run the same unit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for width in (8, 12, 16, 20))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x).cumsum(0)
        return x


def model() -> Stack:
    torch.manual_seed(0)
    return Stack().eval()


SETTINGS: dict[str, Any] = {"dynamic_shapes": ROWS, "split_on": ["cumsum"], "options": EAGER}


def with_a_fault(owner: Stack, file: Path, at: int, was: str, put: str) -> Program:
    """A program of the model, one of whose pieces computes something else."""
    program = hotstart.compile(owner, (X,), **SETTINGS)
    artifact = program.artifact
    (stitched,) = artifact.calls[0].stitched
    wrong = stitched.units[at]
    units = []
    for unit in artifact.units:
        if unit.key == wrong:
            assert was in unit.source
            unit = replace(unit, code=unit_code(unit.key, unit.source.replace(was, put)))
        units.append(unit)
    file.write_bytes(b"".join(checked_parts(replace(artifact, units=tuple(units), native=None))))
    return hotstart.load(file, owner)


@pytest.mark.parametrize("at", [0, 2])
def test_the_piece_with_a_fault_is_found(tmp_path: Path, at: int) -> None:
    owner = model()
    program = with_a_fault(owner, tmp_path / "wrong.hot", at, "relu(", "0.5 * relu(")
    found = hotstart.bisect(owner, (X,), program=program, **SETTINGS)
    compiled = [piece for piece in program.pieces if piece.kind == "compiled"]
    assert found.first == compiled[at].name
    assert [piece.departs for piece in found.pieces].count(True) == 1, "the others are right"
    assert [p.error_so_far > 1e-4 for p in found.pieces] == [n >= at for n in range(4)]
    assert found.departs
    assert not found.captured_departs
    assert f"{compiled[at].name} is the first piece to depart" in str(found)


@pytest.mark.slow
def test_a_program_that_is_right_departs_nowhere() -> None:
    found = hotstart.bisect(model(), (X,), dynamic_shapes=ROWS, split_on=["cumsum"])
    assert found.first is None
    assert not found.departs
    assert 0 <= found.error < 1e-5
    assert found.captured_error == 0.0
    assert len(found.pieces) == 4
    assert "no piece departs from eager mode" in str(found)


@pytest.mark.thorough
def test_what_is_allowed_can_be_said(tmp_path: Path) -> None:
    owner = model()
    program = with_a_fault(owner, tmp_path / "wrong.hot", 1, "relu(", "1.05 * relu(")
    assert hotstart.bisect(owner, (X,), program=program, **SETTINGS).first is not None
    found = hotstart.bisect(owner, (X,), program=program, tolerance=0.5, **SETTINGS)
    assert found.first is None
    assert found.tolerance == 0.5


def test_the_program_is_as_it_was_afterwards(tmp_path: Path) -> None:
    owner = model()
    program = hotstart.compile(owner, (X,), **SETTINGS)
    before = program(X)
    hotstart.bisect(owner, (X,), program=program, **SETTINGS)
    assert torch.equal(program(X), before)


class Counting(nn.Module):
    """Writes to a buffer in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x * 2 + self.seen * 0


def test_pieces_of_calls_that_write_to_weights_run_once() -> None:
    found = hotstart.bisect(Counting(), (X,), options=EAGER)
    assert [piece.error for piece in found.pieces] == [None]
    assert found.first is None


def test_a_program_of_another_cut_is_refused() -> None:
    owner = model()
    program = hotstart.compile(owner, (X,), options=EAGER, split_on=["relu"])
    with pytest.raises(OptionsError, match="takes one of the"):
        hotstart.bisect(owner, (X,), program=program, **SETTINGS)


def test_a_program_of_other_dynamic_sizes_is_refused() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten() * 2

    program = hotstart.compile(Flat().eval(), (X,), dynamic_shapes=ROWS, options=EAGER)
    with pytest.raises(OptionsError, match=r"piece_0 takes 1 tensors and 1 sizes.*\ndo: declare"):
        hotstart.bisect(Flat().eval(), (X,), program=program, options=EAGER)


@pytest.mark.parametrize("tolerance", [-1, "small"])
def test_a_tolerance_is_a_share(tolerance: Any) -> None:
    with pytest.raises(OptionsError, match="tolerance: got"):
        hotstart.bisect(model(), (X,), tolerance=tolerance)


# --- the command line -----------------------------------------------------------------------------

SHOP = """
from tests.integration.test_bisect import ROWS, X, model

def stack():
    return {"model": model(), "args": (X,), "dynamic_shapes": ROWS}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bisected_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.thorough
def test_bisect_of_a_file(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_a_fault(model(), shop / "wrong.hot", 1, "relu(", "0.5 * relu(")
    command = "bisect bisected_shop:stack --compiler op_by_op --split-on cumsum --json"
    assert main([*command.split(), "--file", "wrong.hot"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == found["pieces"][1]["name"]
    assert main(command.split()) == 0
    assert json.loads(capsys.readouterr().out)["first"] is None
