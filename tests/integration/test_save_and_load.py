"""Saved in one process, loaded in another: the same program, or a clear error."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.artifact.compatibility import load_check
from hotstart.artifact.container import pack, read
from tests.integration.shop import Counting, Gate, Result, Shop, Turned
from tests.versions import checks_tensors

pytestmark = pytest.mark.usefixtures("kept_pieces")

EAGER = hotstart.Options(compiler="op_by_op")
SEQ = {"x": {0: Dim("batch", max=8, sizes=[1])}}


def shop() -> Shop:
    torch.manual_seed(0)
    return Shop().eval()


def build(model: Any = None, *args: Any, **more: Any) -> hotstart.Program:
    given = args or (torch.zeros(4, 8),)
    return hotstart.compile(model or shop(), given, **{"options": EAGER, **more})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model compiled with Inductor, saved and checked."""
    file = tmp_path_factory.mktemp("saved") / "shop.hot"
    build(dynamic_shapes=SEQ, options=None).save(file)
    return file


def run_fresh(code: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """Run code in a process that has no compiler, no caches and no home; its last line is JSON."""
    clean = {
        "PATH": "/nonexistent",
        "HOME": "/proc/nonexistent",  # which not even root could write to
        "TORCHINDUCTOR_CACHE_DIR": "/proc/nonexistent",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), *map(str, arguments)],
        env=clean,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


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
    assert found["actions"] == ["loaded"]


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
@pytest.mark.parametrize("options", [EAGER, None], ids=["op_by_op", "inductor"])
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


def test_an_operator_that_is_not_there_is_named_at_load(
    tmp_path: Path, python: Callable[..., str]
) -> None:
    from tests.integration.own_op import Halving

    file = tmp_path / "model.hot"
    build(Halving(), split_on=["hotstart_tests::halve"]).save(file, check=False)
    code = """
        import sys, torch, hotstart
        class Halving(torch.nn.Module):
            pass
        try:
            hotstart.load(sys.argv[1], Halving(), compare_source=False)
        except hotstart.ArtifactError as error:
            print(error)
    """
    assert "halve" in python("-c", dedent(code), file)


@pytest.mark.parametrize(
    ("schema", "fake", "named"),
    [
        ("(Tensor(a!) x) -> Tensor", torch.empty_like, r"expected own::op\(Tensor x\)"),
        ("(Tensor x) -> Tensor", torch.zeros_like, "operator own::op: expected"),
    ],
    ids=["schema", "fake implementation"],
)
def test_another_operator_of_the_same_name_is_refused_at_load(
    schema: str, fake: Any, named: str, tmp_path: Path
) -> None:
    def calling(x: Tensor) -> Tensor:
        return torch.ops.own.op(x) + 1

    def defined(schema: str, fake: Any) -> torch.library.Library:
        library = torch.library.Library("own", "DEF")
        library.define(f"op{schema}")
        library.impl("op", lambda x: x * 2, "CPU")
        torch.library.register_fake("own::op", lambda x: fake(x), lib=library)
        return library

    library = defined("(Tensor x) -> Tensor", torch.empty_like)
    build(calling).save(tmp_path / "model.hot", check=False)
    x = torch.randn(4, 8)
    assert torch.equal(hotstart.load(tmp_path / "model.hot", calling)(x), x * 2 + 1)
    library._destroy()
    library = defined(schema, fake)
    try:
        with pytest.raises(hotstart.ModelMismatch, match=named):
            hotstart.load(tmp_path / "model.hot", calling)
    finally:
        library._destroy()


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


def altered(file: Path, change: Any) -> None:
    """Write a file anew with another manifest, digests and all."""
    contents = read(file)
    manifest = json.loads(contents.manifest)
    change(manifest)
    file.write_bytes(b"".join(pack(manifest, contents.blobs)))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("hotstart", "9.0"), ("python", "cpython-399 (abi)"), ("bytecode", "00000000"),
        ("torch", "2.99.0"), ("torch_build", "0" * 40), ("platform", "linux-vax"),
        ("libc", "glibc 9.99"), ("instructions", ["avx9000"]), ("something_new", "x"),
    ],
)  # fmt: skip
def test_every_part_that_differs_is_named(tmp_path: Path, part: str, value: Any) -> None:
    file = tmp_path / "model.hot"
    build().save(file, check=False)
    altered(file, lambda manifest: manifest["fingerprint"].update({part: value, "other": "x"}))
    with pytest.raises(hotstart.IncompatibleArtifact) as caught:
        hotstart.load(file, shop())
    assert {name for name, _, _ in caught.value.differences} == {part, "other"}
    assert f"{part}: expected " in str(caught.value)


def test_instructions_count_only_where_there_is_native_code(saved: Path, tmp_path: Path) -> None:
    build().save(tmp_path / "model.hot", check=False)
    assert hotstart.inspect(tmp_path / "model.hot").fingerprint["instructions"] == []
    assert hotstart.inspect(saved).fingerprint["instructions"]


SOURCE = """
from torch import nn
class Scale(nn.Module):
    def forward(self, x):
        return x * 2
"""


def test_a_traced_source_that_changed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scaling.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import scaling  # type: ignore[import-not-found]

    file = tmp_path / "model.hot"
    build(scaling.Scale()).save(file)
    hotstart.load(file, scaling.Scale())
    (tmp_path / "scaling.py").write_text(SOURCE.replace("2", "3") + "# longer\n")
    hotstart.load(file, scaling.Scale())  # runs what was imported before
    with pytest.raises(hotstart.IncompatibleArtifact, match=r"source scaling\.Scale\.forward"):
        load_check(file)
    importlib.reload(scaling)
    with pytest.raises(hotstart.ModelMismatch, match=r"scaling\.Scale\.forward"):
        hotstart.load(file, scaling.Scale())
    hotstart.load(file, scaling.Scale(), compare_source=False)
    monkeypatch.delitem(sys.modules, "scaling")


def test_a_model_that_does_not_fit_is_refused_at_load(saved: Path) -> None:
    model = shop()
    model.layers[0].up = nn.Linear(8, 17)
    del model.layers[1].down.bias
    model.layers[2].norm.adapter = nn.Parameter(torch.zeros(8))
    with pytest.raises(hotstart.ModelMismatch) as caught:
        hotstart.load(saved, model)
    named = " ".join(caught.value.problems)
    for name in ("layers.0.up.weight", "layers.0.up.bias", "layers.1.down.bias", "norm.adapter"):
        assert name in named


def test_another_structure_with_the_same_tensors_is_refused_at_load(saved: Path) -> None:
    deeper, activation, epsilon = Shop(4).eval(), shop(), shop()
    activation.layers[2].gate = nn.GELU()
    epsilon.layers[1].norm.eps = 1e-3
    for model, named in (
        (deeper, "len(layers._modules): expected 3, found 4"),
        (activation, "layers.2.gate: expected a torch.nn.modules.activation.ReLU"),
        (epsilon, "layers.1.norm.eps: expected 1e-05, found 0.001"),
    ):
        with pytest.raises(hotstart.ModelMismatch) as caught:
            hotstart.load(saved, model)
        assert named in str(caught.value)


def hooked(model: nn.Module) -> nn.Module:
    model.layers[1].up.register_forward_hook(lambda module, args, result: result * 2)
    return model


def hooked_before(model: nn.Module) -> nn.Module:
    model.layers[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return model


def patched(model: nn.Module) -> nn.Module:
    model.layers[1].norm.forward = lambda x: x * 2
    return model


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (hooked, "hooks and methods of layers.1.up: expected none, found _forward_hooks"),
        (hooked_before, "hooks and methods of layers.1: expected none, found _forward_pre_hooks"),
        (patched, "hooks and methods of layers.1.norm: expected none, found forward"),
    ],
)
def test_code_of_an_object_is_compared_at_load(
    change: Callable[[nn.Module], nn.Module], named: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(hotstart.ModelMismatch, match=named):
        hotstart.load(saved, change(shop()))
    build(change(shop())).save(tmp_path / "model.hot", check=False)
    model = change(shop())
    x = torch.randn(4, 8)
    loaded = hotstart.load(tmp_path / "model.hot", model)
    assert torch.equal(loaded(x).scores, model(x).scores)
    with pytest.raises(hotstart.ModelMismatch, match=r"layers\.1"):
        hotstart.load(tmp_path / "model.hot", shop())


def test_hooks_of_every_module_are_compared_at_load(saved: Path) -> None:
    hook = nn.modules.module.register_module_forward_hook(lambda module, args, result: result)
    try:
        with pytest.raises(hotstart.ModelMismatch, match="of every module: expected none"):
            hotstart.load(saved, shop())
    finally:
        hook.remove()


def test_on_miss_is_chosen_by_the_load(saved: Path) -> None:
    model = shop()
    program = hotstart.load(saved, model, on_miss="eager")
    x = torch.randn(20, 8)
    assert torch.equal(program(x).scores, model(x).scores)
    with pytest.raises(hotstart.HotstartError, match="on_miss"):
        hotstart.load(saved, model, on_miss="sometimes")  # type: ignore[arg-type]


# --- trust ----------------------------------------------------------------------------------------


def test_with_keys_only_what_they_signed_is_loaded(saved: Path, tmp_path: Path) -> None:
    from hotstart.artifact.signing import generate

    ours, _ = generate(tmp_path / "ours")
    theirs, _ = generate(tmp_path / "theirs")
    signed = tmp_path / "signed.hot"
    model = shop()
    hotstart.load(saved, model).save(signed, sign_key=tmp_path / "ours", check=False)
    hotstart.load(signed, model, trusted_keys=[theirs, ours])
    for file, keys in ((signed, [theirs]), (saved, [ours]), (signed, [])):
        with pytest.raises(hotstart.UntrustedArtifact):
            hotstart.load(file, model, trusted_keys=keys)
    altered_bytes = bytearray(signed.read_bytes())
    altered_bytes[-1] ^= 1
    signed.write_bytes(altered_bytes)
    with pytest.raises(hotstart.CorruptArtifact, match="blob"):
        hotstart.load(signed, model, trusted_keys=[ours])


# --- bad input ------------------------------------------------------------------------------------


def _no_fields(manifest: dict[str, Any]) -> None:
    for name in [name for name in manifest if name not in ("fingerprint", "blobs")]:
        del manifest[name]


def _no_such_blob(manifest: dict[str, Any]) -> None:
    manifest["units"][0]["code"]["source"] = "elsewhere.py"


def _no_such_class(manifest: dict[str, Any]) -> None:
    manifest["calls"][0]["contract"]["parameters"][0]["tree"] = {
        "type": "seq",
        "cls": "os:nothing",
        "items": [],
    }


def _no_such_value(manifest: dict[str, Any]) -> None:
    manifest["calls"][0]["contract"]["parameters"][0]["default"] = {
        "pickle": "gASVBQAAAAAAAABLAS4="
    }


def _no_fingerprint(manifest: dict[str, Any]) -> None:
    del manifest["fingerprint"]


def _no_report(manifest: dict[str, Any]) -> None:
    manifest["report"] = {}


def _no_such_unit(manifest: dict[str, Any]) -> None:
    manifest["calls"][0]["stitched"][0]["units"] = ["missing"]


def _odd_fingerprint(manifest: dict[str, Any]) -> None:
    manifest["fingerprint"]["sources"] = {"module": 3}


@pytest.mark.parametrize(
    "change",
    [
        _no_fields, _no_such_blob, _no_such_class, _no_such_value, _no_such_unit, _no_report,
        _no_fingerprint, _odd_fingerprint,
    ],
)  # fmt: skip
def test_a_manifest_that_says_something_else_is_an_error(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "model.hot"
    build().save(file, check=False)
    altered(file, change)
    with pytest.raises(hotstart.ArtifactError):
        hotstart.load(file, shop())
