"""What no checkpoint holds travels in the file of the program."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import ModelMismatch
from tests.integration.checkpoints import EAGER, X, saved

pytestmark = pytest.mark.usefixtures("kept_pieces")


class Rotary(nn.Module):
    """Has what no checkpoint holds: tables, a mask for each of two layers, a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("table", torch.randn(64, 8), persistent=False)
        for name in ("mask_0", "mask_1"):
            self.register_buffer(name, torch.ones(64, 64).tril() > 0, persistent=False)
        self.register_buffer("zeros", torch.zeros(1000, 8), persistent=False)
        self.register_buffer("scale", torch.full((), 2.0))
        self.plain = torch.randn(8)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        y = self.linear(x) * self.table[:n] + self.zeros[:n] + self.plain
        y = y * self.mask_0[:n, :1] * self.mask_1[:n, :1]
        return y * self.scale


def test_what_checkpoints_leave_out_travels_in_the_file(tmp_path: Path) -> None:
    model = Rotary().eval()
    file = saved(model, tmp_path / "rotary.hot")
    assert set(model.state_dict()) == {"linear.weight", "linear.bias", "scale"}
    program = hotstart.load(file, weights=model.state_dict())
    assert torch.equal(program(X), model(X).detach())
    blobs = {blob.name: blob.size for blob in hotstart.inspect(file).blobs}
    assert blobs["tensors.safetensors"] < 64 * 8 * 4 + 64 * 64 + 2000  # equal masks once, no zeros
    again = tmp_path / "again.hot"
    program.save(again)
    assert torch.equal(hotstart.load(again, weights=model.state_dict())(X), program(X))


def test_inspect_says_how_much_that_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hotstart.cli import main

    file = saved(Rotary(), tmp_path / "rotary.hot")
    assert main(["inspect", str(file)]) == 0
    assert "5 tensors that no checkpoint has" in capsys.readouterr().out


def test_an_old_spelling_in_a_checkpoint_does_not_replace_them(tmp_path: Path) -> None:
    model = Rotary().eval()
    file = saved(model, tmp_path / "rotary.hot")
    weights = {**model.state_dict(), "table": torch.zeros(64, 8)}
    assert torch.equal(hotstart.load(file, weights=weights)(X), model(X).detach())


def test_a_model_on_meta_has_none_of_it(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = Rotary()
    file = saved(model, tmp_path / "rotary.hot")
    real = Rotary().eval()
    with pytest.raises(ModelMismatch, match="Save the program while its model has weights") as told:
        hotstart.load(file, weights=real.state_dict())
    assert [name for name, _, _ in told.value.differences] == [
        "table", "zeros", "plain", "mask_0", "mask_1",
    ]  # fmt: skip
    assert torch.equal(hotstart.load(file, real)(X), real(X).detach())


def test_a_file_of_an_older_version_says_what_it_lacks(tmp_path: Path) -> None:
    from msgspec.structs import replace

    from hotstart.artifact.disk import write
    from hotstart.saving import checked_parts

    model = Rotary().eval()
    artifact = hotstart.compile(model, (X,), options=EAGER).artifact
    write(tmp_path / "old.hot", checked_parts(replace(artifact, left_out=None)))
    with pytest.raises(ModelMismatch, match="does not hold what checkpoints leave out"):
        hotstart.load(tmp_path / "old.hot", weights=model.state_dict())
