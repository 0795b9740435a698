"""Saved in one process, loaded in another: the same program."""

from __future__ import annotations

import getpass
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import Tensor

import hotstart
from hotstart import Dim
from hotstart.artifact.container import read
from tests.integration.shop import Counting, Gate, Result, Shop, Turned
from tests.integration.shop_programs import EAGER, build, shop
from tests.processes import run_fresh
from tests.versions import checks_tensors

pytestmark = pytest.mark.usefixtures("kept_pieces")


SEQ = {"x": {0: Dim("batch", max=8, sizes=[1])}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model compiled with Inductor, saved and checked."""
    file = tmp_path_factory.mktemp("saved") / "shop.hot"
    build(dynamic_shapes=SEQ, options=None).save(file)
    return file


LOAD_AND_CALL = """
    import json, sys
    import torch
    import hotstart
    from tests.integration.shop import Shop
    torch.manual_seed(0)
    model = Shop().eval()
    program = hotstart.load(sys.argv[1], model)
    differences = []
    for batch in (1, 2, 5, 8):
        x = torch.randn(batch, 8)
        expected = model(x)
        found = program(x)
        assert type(found) is type(expected)
        differences.append(float((found.scores - expected.scores).abs().max()))
    heavy = ("torch._dynamo", "torch._inductor", "sympy", "hotstart.compilers", "hotstart.capture")
    print(json.dumps({
        "differences": differences,
        "heavy": [name for name in sys.modules if name.startswith(heavy)],
        "actions": sorted({unit.action for unit in program.report.units}),
    }))
"""


def test_a_fresh_process_without_compiler_caches_and_home_runs_it(
    saved: Path, tmp_path: Path
) -> None:
    found = run_fresh(LOAD_AND_CALL, saved, TMPDIR=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert list(tmp_path.iterdir()) == []  # nothing is written
    assert max(found["differences"]) < 1e-5
    assert found["heavy"] == []
    assert found["actions"] == ["loaded", "reused"]


def test_a_loaded_program_behaves_as_the_built_one(saved: Path) -> None:
    model = shop()
    built, loaded = build(model, dynamic_shapes=SEQ, options=None), hotstart.load(saved, model)
    x = torch.randn(3, 8)
    assert torch.equal(built(x).scores, loaded(x).scores)
    assert built.code == loaded.code
    assert built.entry_code == loaded.entry_code
    assert built.pieces == loaded.pieces
    for wrong in (torch.zeros(9, 8), torch.zeros(3, 7), torch.zeros(3, 8).double(), None):
        messages = []
        for program in (built, loaded):
            with pytest.raises(hotstart.ContractError) as caught:
                program(wrong)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_a_loaded_program_can_be_saved_and_loaded_again(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.hot"
    hotstart.load(saved, shop()).save(again)
    assert again.read_bytes() == saved.read_bytes()


def test_the_check_made_at_save_is_recorded(saved: Path, tmp_path: Path) -> None:
    check = hotstart.inspect(saved).check
    assert check["exact"] is True
    assert check["tensors"] > 4
    build().save(tmp_path / "unchecked.hot", check=False)
    assert hotstart.inspect(tmp_path / "unchecked.hot").check == {}


@checks_tensors
@pytest.mark.parametrize(
    "options",
    [EAGER, pytest.param(None, marks=pytest.mark.thorough)],
    ids=["op_by_op", "inductor"],
)
def test_what_a_model_asserts_of_its_inputs_is_asserted_in_calls_only(
    options: hotstart.Options | None, tmp_path: Path
) -> None:
    def f(ids: Tensor) -> Tensor:
        torch._check_tensor_all(ids > 0)
        return ids * 2

    file, ids = tmp_path / "model.hot", torch.tensor([3, 1])
    build(f, ids, options=options).save(file)
    program = hotstart.load(file, f)
    assert program(ids).tolist() == [6, 2]
    with pytest.raises(RuntimeError, match="expected True, as the model says"):
        program(ids - 1)


@pytest.mark.thorough
@pytest.mark.usefixtures("checks_in_new_processes")
def test_what_does_not_run_by_itself_is_not_saved(tmp_path: Path) -> None:
    library = torch.library.Library("hotstart_test_only_here", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    library.impl("twice", lambda x: torch.empty_like(x), "Meta")

    def only_here(x: Tensor) -> Tensor:
        return torch.ops.hotstart_test_only_here.twice(x) + 1

    program = build(only_here)
    with pytest.raises(hotstart.ArtifactError, match="hotstart_test_only_here"):
        program.save(tmp_path / "model.hot")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_of_the_models_own_is_found_in_its_module(
    tmp_path: Path, python: Callable[..., str]
) -> None:
    from tests.integration.own_op import Halving

    file = tmp_path / "model.hot"
    build(Halving(), split_on=["hotstart_tests::halve"]).save(file)
    code = """
        import sys, torch, hotstart
        from tests.integration.own_op import Halving
        x = torch.randn(4, 8)
        found = hotstart.load(sys.argv[1], Halving())(x)
        print(torch.equal(found, Halving()(x)))
    """
    assert python("-c", dedent(code), file) == "True\n"


def test_a_piece_that_runs_op_by_op_is_saved_and_named_with_the_reason(tmp_path: Path) -> None:
    def overlapping(x: Tensor) -> Tensor:
        first, second = x[:, :2], x[:, 1:3]
        y = torch.cumsum(x, 0)
        first.add_(1)
        return second * 2 + y[:, 1:3]

    program = build(overlapping, torch.zeros(2, 4), split_on=["aten::cumsum"], options=None)
    program.save(tmp_path / "model.hot")
    loaded = hotstart.load(tmp_path / "model.hot", overlapping)
    assert loaded.report.op_by_op == program.report.op_by_op
    assert "share memory" in loaded.report.op_by_op[0][1]
    mine, theirs = torch.arange(8.0).view(2, 4), torch.arange(8.0).view(2, 4)
    assert torch.equal(loaded(mine), overlapping(theirs))
    assert torch.equal(mine, theirs)


def test_saving_leaves_the_random_numbers_of_the_process_alone(tmp_path: Path) -> None:
    program = build(lambda x: torch.nn.functional.dropout(x, 0.5, True))
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    program.save(tmp_path / "model.hot")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.thorough
def test_the_same_build_twice_gives_the_same_bytes(
    tmp_path: Path, python: Callable[..., str]
) -> None:
    first, second = tmp_path / "first.hot", tmp_path / "second.hot"
    build(dynamic_shapes={"x": {0: Dim("batch", max=8)}}, options=None).save(first, check=False)
    code = """
        import sys, torch, hotstart
        from tests.integration.shop import Shop
        torch.manual_seed(7)  # weights are no part of it
        dims = {"x": {0: hotstart.Dim("batch", max=8)}}
        program = hotstart.compile(Shop().eval(), (torch.zeros(4, 8),), dynamic_shapes=dims)
        program.save(sys.argv[1], check=False)
    """
    python("-c", dedent(code), second, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert first.read_bytes() == second.read_bytes()


def test_no_path_host_or_user_is_in_the_file(saved: Path) -> None:
    content = saved.read_bytes()
    named = [str(Path.cwd()), str(Path.home()), str(saved.parent), sys.prefix, "site-packages"]
    named += [f"torchinductor_{getpass.getuser()}", "/tmp/"]
    assert [name for name in named if name.encode() in content] == []
    contents = read(saved)
    texts = [blob for name, blob in contents.blobs.items() if name.endswith(".py")]
    words = set(re.findall(rb"[\w.-]+", contents.manifest + b" ".join(map(bytes, texts))))
    assert socket.gethostname().encode() not in words


def test_nothing_in_the_file_is_a_pickle(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled something")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    hotstart.load(saved, shop())(torch.zeros(2, 8))


# --- what an artifact holds besides code ----------------------------------------------------------


def test_results_constants_and_structures_come_back(tmp_path: Path) -> None:
    file = tmp_path / "model.hot"
    model = Turned().eval()
    kwargs = {
        "mode": Gate.HALF,
        "extra": {"a": (torch.zeros(2, 3), [1.5, None])},
        "at": slice(0, 2),
    }
    program = hotstart.compile(model, (torch.zeros(2, 3),), kwargs, options=EAGER)
    program.save(file)
    loaded = hotstart.load(file, model)
    x = torch.randn(2, 3)
    kwargs["extra"] = {"a": (torch.randn(2, 3), [1.5, None])}
    mine, theirs = loaded(x, **kwargs), model(x, **kwargs)
    assert isinstance(mine, Result)
    assert torch.equal(mine.scores, theirs.scores)
    assert mine.notes == theirs.notes
    with pytest.raises(hotstart.ContractError, match="mode"):
        loaded(x, **{**kwargs, "mode": Gate.FULL})


def test_tensors_that_no_module_keeps_are_in_the_file(tmp_path: Path) -> None:
    table = torch.randn(6, 4).t()  # another order in memory

    def shifted(x: Tensor) -> Tensor:
        return x + table

    program = build(shifted, torch.zeros(4, 6))
    program.save(tmp_path / "model.hot")
    x, expected = torch.randn(4, 6), table.clone()
    found = hotstart.load(tmp_path / "model.hot", shifted)(x)
    assert torch.equal(found, x + expected)
    table.zero_()  # what is in the file is what was there when it was saved
    with pytest.raises(hotstart.ModelMismatch, match="table"):
        hotstart.load(tmp_path / "model.hot", shifted)


def test_one_artifact_serves_every_checkpoint_and_kernels_are_shared(saved: Path) -> None:
    first, second = shop(), Shop().eval()
    programs = [hotstart.load(saved, model) for model in (first, second)]
    kernels = [name for name in sys.modules if name.startswith("hotstart_")]
    assert len(kernels) == len(set(kernels))
    units = programs[0].artifact.units
    assert {f"hotstart_{k.name}.kernel" for unit in units for _, k in unit.kernels} <= set(kernels)
    x = torch.randn(5, 8)
    for program, model in zip(programs, (first, second), strict=True):
        torch.testing.assert_close(program(x).scores, model(x).scores.detach())


def test_a_model_built_on_meta_serves_real_weights(tmp_path: Path) -> None:
    with torch.device("meta"):
        hollow = Shop().eval()
    build(hollow).save(tmp_path / "model.hot")
    model = shop()
    x = torch.randn(4, 8)
    found = hotstart.load(tmp_path / "model.hot", model)(x)
    assert torch.equal(found.scores, model(x).scores.detach())


def test_buffers_are_updated_in_the_model_that_was_loaded_with(tmp_path: Path) -> None:
    build(Counting(), torch.zeros(3)).save(tmp_path / "model.hot")
    model = Counting()
    program = hotstart.load(tmp_path / "model.hot", model)
    program(torch.zeros(3))
    assert torch.equal(program(torch.zeros(3)), torch.full((3,), 2.0))
    assert model.seen == 2


def test_written_state_that_no_module_keeps_is_refused(tmp_path: Path) -> None:
    seen = torch.zeros(4, 8)

    def counting(x: Tensor) -> Tensor:
        seen.add_(1)
        return x + seen

    program = build(counting)
    with pytest.raises(hotstart.ArtifactError, match="Register it as a buffer"):
        program.save(tmp_path / "model.hot")


# --- fit ------------------------------------------------------------------------------------------


def test_instructions_count_only_where_there_is_native_code(saved: Path, tmp_path: Path) -> None:
    build().save(tmp_path / "model.hot", check=False)
    assert hotstart.inspect(tmp_path / "model.hot").fingerprint["instructions"] == []
    assert hotstart.inspect(saved).fingerprint["instructions"]
