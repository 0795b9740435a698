"""Builds for several targets: saved again, checked, and kept in a cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hotstart
from hotstart import Options, Store
from hotstart.cli import main
from hotstart.errors import ArtifactError, OptionsError
from hotstart.events import Event
from hotstart.targets import TargetName
from tests.integration.alone import Encoder, Saved
from tests.integration.several_targets.encoders import LACKED, ON_V4, V3, V4
from tests.integration.test_targets import SIZES, forbidden, instructions, layer

pytestmark = ON_V4


@pytest.mark.slow
def test_a_program_that_was_loaded_is_saved_for_all_targets(
    two: Saved, lesser: Saved, tmp_path: Path
) -> None:
    copied, again = tmp_path / "copied.hot", tmp_path / "again.hot"
    shutil.copyfile(two.file, copied)
    program = hotstart.load(copied, Encoder().eval())
    program.save(again, check=False)
    assert again.read_bytes() == two.file.read_bytes()
    copied.write_bytes(lesser.file.read_bytes())
    with pytest.raises(ArtifactError, match="expected the file that the program was loaded from"):
        program.save(again, check=False)
    copied.unlink()
    with pytest.raises(ArtifactError, match="expected a file that can be read"):
        program.save(again, check=False)
    assert again.read_bytes() == two.file.read_bytes()


def test_the_check_at_save_runs_all_targets(two: Saved, tmp_path: Path) -> None:
    file = tmp_path / "model.hot"
    two.program.save(file)
    for target in (V3, V4):
        assert hotstart.inspect(file, target).check["tensors"] > 0


def test_the_check_at_save_refuses_a_target_that_cannot_run_here(
    lesser: Saved, tmp_path: Path
) -> None:
    program = hotstart.load(lesser.file, Encoder().eval())
    with pytest.raises(OptionsError, match=rf"runs the code for {V4}, found one without {LACKED}"):
        program.save(tmp_path / "model.hot")
    program.save(tmp_path / "model.hot", check=False)


def actions(store: Store, target: Any, model: nn.Module) -> tuple[list[str], hotstart.Program]:
    """What was done for each piece and target of a build."""
    found: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "unit_finished":
            found.append(event.detail["action"])

    wanted = Options(target=target, on_event=listen)
    x = torch.ones(3, 8)
    return found, hotstart.compile(model, (x,), options=wanted, cache=store)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x).softmax(-1)


@pytest.mark.slow
def test_a_cache_has_pieces_by_target_and_programs_with_all(
    tmp_path: Path, compiled_anew: None
) -> None:
    store, model = Store(tmp_path / "store"), Small().eval()
    assert actions(store, V3, model)[0] == ["compiled"]
    found, built = actions(store, (V3, V4), model)
    assert found == ["compiled", "loaded"]  # for v4, which comes first, and for v3
    assert actions(store, V4, model)[0] == ["loaded"]
    nothing, program = actions(store, (V4, V3), model)
    assert nothing == []
    assert program.report.targets == (V4, V3)
    built.save(tmp_path / "built.hot", check=False)
    program.save(tmp_path / "found.hot", check=False)
    one, other = (hotstart.inspect(tmp_path / f"{name}.hot") for name in ("built", "found"))
    assert one.targets == other.targets
    assert [each.target for each in other.targets] == [V4, V3]
    assert main(["cache", "verify", "--cache", str(store.folder.root)]) == 0


def test_a_call_that_is_compiled_for_is_compiled_for_this_machine() -> None:
    wanted = Options(target=(V3, V4), compiler="op_by_op", on_miss="compile")
    program = hotstart.compile(Small().eval(), (torch.ones(3, 8),), options=wanted)
    assert program(torch.ones(2, 8)).shape == (2, 16)
    ((more,),) = program._misses.compiled.values()
    assert more.artifact.fingerprint["target"] == V4
    assert more.report.targets == ()


def test_pieces_without_kernels_are_the_same_for_all_targets(tmp_path: Path) -> None:
    model, x = Small().eval(), torch.ones(3, 8)
    program = hotstart.compile(
        model, (x,), options=Options(target=(V3, V4), compiler="op_by_op", form="python")
    )
    program.save(tmp_path / "model.hot")
    units = [artifact.units[0] for artifact in program.artifacts()]
    assert units[0] == units[1]
    assert (tmp_path / "model.hot").read_bytes().count(units[0].source.encode()) == 1
    assert torch.equal(hotstart.load(tmp_path / "model.hot", model)(x), program(x))


def test_native_builds_for_this_machine_are_best() -> None:
    given = Options(target=(V3, "native"), compiler="op_by_op")
    assert given.targets == ("native", V3)


def test_torch_compile_takes_one_target() -> None:
    compiled = torch.compile(
        Small().eval(), backend="hotstart", options={"target": (V3, V4)}, fullgraph=True
    )
    with torch.no_grad(), pytest.raises(Exception, match="target: got") as raised:
        compiled(torch.ones(3, 8))
    assert isinstance(getattr(raised.value, "inner_exception", raised.value), OptionsError)


@pytest.mark.slow
def test_code_for_each_target_is_for_its_level(tmp_path: Path, compiled_anew: None) -> None:
    """Both are compiled in one process; neither has what only the other may use."""
    model, x = layer()
    wanted = Options(target=(V3, V4))
    program = hotstart.compile(model, (x,), dynamic_shapes=SIZES, options=wanted)
    levels: tuple[TargetName, ...] = ("x86-64-v4", "x86-64-v3")
    for level, artifact in zip(levels, program.artifacts(), strict=True):
        kernels = [kernel for unit in artifact.units for _, kernel in unit.kernels]
        assert artifact.native is not None
        code = [instructions(bytes(each.data), tmp_path) for each in kernels]
        code.append(instructions(bytes(artifact.native.library.data), tmp_path))
        assert not [line for text in code for line in forbidden(level, text)]
        assert any("%zmm" in text for text in code) == (level == V4)
        assert any("%ymm" in text for text in code)


def test_targets_are_known_by_name() -> None:
    names: list[TargetName] = ["x86-64-v2", "native", "x86-64-v4", "x86-64-v3"]
    assert Options(target=names).targets == ("native", V4, V3, "x86-64-v2")
