"""A file that does not fit the process, the model or the keys is refused with what differs."""

from __future__ import annotations

import importlib
import json
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
from hotstart.artifact.container import file_parts, read
from tests.integration.shop import Shop
from tests.integration.shop_programs import build, shop


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of the shop for a batch of one and for any other up to 8."""
    file = tmp_path_factory.mktemp("saved") / "shop.hot"
    build(dynamic_shapes={"x": {0: Dim("batch", max=8, sizes=[1])}}).save(file, check=False)
    return file


# --- operators ------------------------------------------------------------------------------------


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


# --- fit ------------------------------------------------------------------------------------------


def altered(file: Path, change: Any) -> None:
    """Write a file anew with another manifest, digests and all."""
    contents = read(file)
    manifest = json.loads(contents.manifest)
    change(manifest)
    file.write_bytes(b"".join(file_parts(manifest, contents.blobs)))


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


def test_a_model_of_another_class_is_named_before_its_parts(saved: Path) -> None:
    with pytest.raises(hotstart.ModelMismatch) as caught:
        hotstart.load(saved, nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    first, *_, last = str(caught.value).splitlines()
    assert first.startswith("the model is a torch.nn.modules.container.Sequential, the program is")
    assert last == "Load it with a tests.integration.shop.Shop, or compile this model."


def test_a_model_of_another_structure_is_told_before_a_short_list(saved: Path) -> None:
    with pytest.raises(hotstart.ModelMismatch) as caught:
        hotstart.load(saved, Shop(12).eval())
    lines = str(caught.value).splitlines()
    assert "of the class that was compiled, but of another structure" in lines[0]
    assert lines[-2] == f"  ... and {len(caught.value.problems) - 20} more"
    assert not any("keys layers" in line for line in lines)


def test_a_model_of_another_dtype_is_converted(saved: Path) -> None:
    with pytest.raises(hotstart.ModelMismatch, match=r"Convert the weights, as by \.to\(torch\.fl"):
        hotstart.load(saved, shop().half())


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
