"""Files of every released format can be read, and run where they fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hotstart
from hotstart.artifact import inspection
from hotstart.artifact.compatibility import misfits
from hotstart.artifact.fingerprint import host
from hotstart.artifact.header import SEVERAL
from hotstart.cli import main
from tests.integration.shop import Shop

SAMPLES = sorted(Path(__file__).parent.glob("format_*.hot"))
PARTS = {"python", "bytecode", "torch", "torch_build", "platform", "libc"}
"""What may differ where the tests run."""


def test_there_is_a_sample_of_every_format() -> None:
    assert [path.stem for path in SAMPLES] == [f"format_{n + 1}" for n in range(SEVERAL)]


@pytest.mark.parametrize("file", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_can_be_inspected_and_verified(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = hotstart.inspect(file)
    assert manifest.fingerprint["torch"] == "2.13.0+cpu"
    assert manifest.check["exact"] is True
    targets = [each.target for each in manifest.targets] or [None]
    blobs = [hotstart.inspect(file, target).blobs for target in targets]
    assert inspection.verify(file)["blobs"] == sum(map(len, blobs))
    assert main(["inspect", str(file)]) == 0
    assert f"pieces: {len(manifest.pieces)}, of " in capsys.readouterr().out


@pytest.mark.parametrize("file", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_runs_where_it_fits_and_says_why_where_it_does_not(file: Path) -> None:
    model = Shop().eval()
    differing = misfits(hotstart.inspect(file).fingerprint, host())
    if differing:
        assert {name for name, _, _ in differing} <= PARTS
        with pytest.raises(hotstart.IncompatibleArtifact):
            hotstart.load(file, model, compare_source=False)
        return
    program = hotstart.load(file, model, compare_source=False)
    x = torch.randn(5, 8)
    torch.testing.assert_close(program(x).scores, model(x).scores.detach())
