"""Models that torchao quantised, and models with adapters of peft."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrize as parametrize
import transformers
from torch import Tensor, nn

import hotstart
from hotstart import CaptureError, Dim, ModelMismatch
from tests.processes import run_fresh
from tests.safetensors_files import file_of
from tests.semantics import assert_same, both, build, check

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
SIZES: Mapping[str, int] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(vocab_size=99, **SIZES)).eval()


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=96, num_key_value_heads=2, tie_word_embeddings=True, use_cache=False, **SIZES
    )
    return transformers.LlamaForCausalLM(config).eval()


def vit() -> nn.Module:
    return transformers.ViTModel(
        transformers.ViTConfig(image_size=32, patch_size=8, **SIZES)
    ).eval()


def ids(rows: int, columns: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 96, (rows, columns))}


def pixels(rows: int, _: int) -> dict[str, Tensor]:
    return {"pixel_values": R(rows, 3, 32, 32)}


MODELS = {"bert": (bert, ids), "llama": (llama, ids), "vit": (vit, pixels)}


def quantised(model: nn.Module, scheme: str) -> nn.Module:
    """Quantise the linear layers of a model; settings of Inductor's stay as they are."""
    ao = pytest.importorskip("torchao.quantization")
    match scheme:
        case "int8 weights":
            config = ao.Int8WeightOnlyConfig(set_inductor_config=False)
        case "int8 dynamic":
            config = ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        case "int8 groups":
            config = ao.Int8WeightOnlyConfig(granularity=ao.PerGroup(32), set_inductor_config=False)
        case "int4 unpacked":
            config = ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=ao.PerGroup(32))
        case "int4":
            int4 = pytest.importorskip("torchao.prototype.quantization.int4")
            config = int4.PrototypeInt4WeightOnlyConfig(group_size=32)
    ao.quantize_(model, config)
    return model


BY_MODEL = [
    name if number == 0 else pytest.param(name, marks=pytest.mark.slow)
    for number, name in enumerate(MODELS)
]
"""Each but the first takes as long again, in `make test-slow`."""

SCHEMES = ("int8 weights", "int8 dynamic", "int8 groups", "int4 unpacked", "int4")


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval()


# --- torchao -------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", BY_MODEL)
def test_a_quantised_model_computes_what_it_does_in_eager(name: str, scheme: str) -> None:
    make, given = MODELS[name]
    model = quantised(make(), scheme)
    program = build(model, kwargs=given(2, 7))
    call = given(2, 7)
    with torch.no_grad():
        assert_same(program(**call)[0], model(**call)[0])


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantised_layers_compiled_by_inductor(scheme: str) -> None:
    model = quantised(layers(), scheme)
    dims = {"input": {0: Dim("rows", min=1, max=8)}}
    program = build(model, R(4, 64), compiler="inductor", dynamic_shapes=dims)
    assert not program.report.op_by_op
    for rows in (1, 2, 8):
        x = R(rows, 64)
        with torch.no_grad():
            assert_same(program(x), model(x), 1e-4)


def test_the_kernels_of_int4_are_called() -> None:
    program = build(quantised(layers(), "int4"), R(4, 64))
    assert "_weight_int4pack_mm_for_cpu" in "".join(unit.source for unit in program.artifact.units)


def test_a_quantised_model_runs_from_a_file_with_weights_of_every_form(tmp_path: Path) -> None:
    model, other = (quantised(bert(), "int8 weights") for _ in range(2))
    build(model, kwargs=ids(2, 7)).save(tmp_path / "model.hot")
    state = other.state_dict()
    torch.save(state, tmp_path / "model.pt")
    flatten = pytest.importorskip("torchao.prototype.safetensors.safetensors_support")
    named, _ = flatten.flatten_tensor_state_dict({n: t.data for n, t in state.items()})
    assert "encoder.layer.0.attention.self.query._weight_qdata" in named
    (tmp_path / "model.safetensors").write_bytes(file_of(named))
    call = ids(2, 7)
    with torch.no_grad():
        expected = other(**call)[0]
    for weights in (state, tmp_path / "model.pt", tmp_path / "model.safetensors"):
        program = hotstart.load(tmp_path / "model.hot", weights=weights)
        assert_same(program(**call)[0], expected)
    assert_same(hotstart.load(tmp_path / "model.hot", other)(**call)[0], expected)


def test_a_model_that_is_quantised_after_the_build_is_a_mismatch() -> None:
    model = layers()
    program = build(model, R(4, 64))
    quantised(model, "int8 weights")
    with pytest.raises(ModelMismatch, match=r"0\.weight: expected .*float32.*found .*Int8Tensor"):
        program(R(4, 64))


@pytest.mark.parametrize(
    ("scheme", "named"),
    [
        ("int8 dynamic", r"0\.weight: context\['act_quant_kwargs'\]: expected None"),
        ("int8 groups", r"0\.weight: context\['block_size'\]\[1\]: expected 64, found 32"),
        ("int4 unpacked", r"0\.weight: expected a .*Int8Tensor.*found a .*IntxUnpacked"),
    ],
)
def test_a_model_that_is_quantised_otherwise_is_a_mismatch(
    tmp_path: Path, scheme: str, named: str
) -> None:
    build(quantised(layers(), "int8 weights"), R(4, 64)).save(tmp_path / "model.hot")
    other = quantised(layers(), scheme)
    for weights in ({"model": other}, {"weights": other.state_dict()}):
        with pytest.raises(ModelMismatch, match=named):
            hotstart.load(tmp_path / "model.hot", **weights)


@pytest.mark.slow
def test_weights_of_int8_are_cast_once_where_weights_are_prepared(tmp_path: Path) -> None:
    model = quantised(layers(), "int8 weights")
    for pack, size in ((True, 4), (False, 0)):
        options = hotstart.Options(pack_weights=pack)
        hotstart.compile(model, (R(4, 64),), options=options).save(tmp_path / "model.hot")
        program = hotstart.load(tmp_path / "model.hot", model)
        assert program.report.packed.bytes == size * (64 * 64 + 32 * 64)
        x = R(4, 64)
        with torch.no_grad():
            assert_same(program(x), model(x), 1e-4)
            program.release_unpacked()
            assert_same(program(x), model(x), 1e-4)


FRESH = """
    import json, sys
    import torch
    import hotstart
    file, weights, given = sys.argv[1:]
    x, expected = torch.load(given)
    torch.testing.assert_close(hotstart.load(file, weights=weights)(x), expected)
    print(json.dumps("torchao" in sys.modules))
"""


@pytest.mark.slow
def test_a_program_needs_no_torchao_where_its_weights_are_plain(tmp_path: Path) -> None:
    model, x = quantised(layers(), "int8 dynamic"), R(4, 64)
    build(model, x).save(tmp_path / "model.hot")
    plain = {n: t for n, t in model.state_dict().items() if n.endswith("bias")}
    for name in ("0.weight", "2.weight"):
        for inner in ("qdata", "scale"):
            plain[f"{name}.{inner}"] = getattr(model.state_dict()[name], inner)
    (tmp_path / "model.safetensors").write_bytes(file_of(plain))
    torch.save((x, model(x).detach()), tmp_path / "given.pt")
    files = [tmp_path / name for name in ("model.hot", "model.safetensors", "given.pt")]
    assert run_fresh(FRESH, *files) is False


@both
def test_quantised_weights_may_be_loaded_and_written(compiler: str) -> None:
    model, other, third = (quantised(layers(), "int8 weights") for _ in range(3))
    program, x = build(model, R(4, 64), compiler=compiler), R(4, 64)
    tolerance = 1e-4 if compiler == "inductor" else 0.0
    with torch.no_grad():
        assert_same(program(x), model(x), tolerance)
        model.load_state_dict(other.state_dict())
        assert_same(program(x), other(x), tolerance)
        model[0].weight.copy_(third[0].weight)
        model[2].weight.qdata.add_(1)
        assert_same(program(x), model(x), tolerance)
        model.load_state_dict(third.state_dict(), assign=True)
        assert_same(program(x), third(x), tolerance)
        model[0].weight = nn.Parameter(model[0].weight.data, requires_grad=False)
        model.to(torch.float32)  # gives every tensor of a subclass other attributes
        model[0].weight.qdata.sub_(1)
        model[2].weight.copy_(other[2].weight)
        assert_same(program(x), model(x), tolerance)


@pytest.mark.thorough
def test_a_mapping_of_quantised_weights_may_be_written(tmp_path: Path) -> None:
    model, other = (quantised(layers(), "int8 weights") for _ in range(2))
    build(model, R(4, 64), compiler="inductor").save(tmp_path / "model.hot")
    program, x = hotstart.load(tmp_path / "model.hot", weights=model.state_dict()), R(4, 64)
    with torch.no_grad():
        assert_same(program(x), model(x), 1e-4)
    state = model.state_dict()
    program = hotstart.load(tmp_path / "model.hot", weights=state)
    with torch.no_grad():
        assert_same(program(x), model(x), 1e-4)
        state["0.weight"].copy_(other[0].weight)
        assert_same(program(x), model(x), 1e-4)


@pytest.mark.slow
def test_repeated_quantised_layers_share_their_pieces() -> None:
    config = transformers.BertConfig(vocab_size=99, **{**SIZES, "num_hidden_layers": 5})
    model = quantised(transformers.BertModel(config).eval(), "int8 dynamic")
    report = build(model, kwargs=ids(2, 7)).report
    assert report.unique < report.pieces - 2


# --- parametrised weights ------------------------------------------------------------------------


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x: Tensor) -> Tensor:
        return x.triu()


def test_parametrised_weights_are_computed_in_every_call(tmp_path: Path) -> None:
    model, other = (nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval() for _ in range(2))
    for each in (model, other):
        parametrize.register_parametrization(each[0], "weight", Symmetric())
    program = check(model, (R(3, 4),))
    program.save(tmp_path / "model.hot")
    x = R(3, 4)
    names = [spec.name for spec in hotstart.inspect(tmp_path / "model.hot").requirements.weights]
    assert "0.parametrizations.weight.original" in names
    for loaded in (
        hotstart.load(tmp_path / "model.hot", other),
        hotstart.load(tmp_path / "model.hot", weights=other.state_dict()),
    ):
        with torch.no_grad():
            assert_same(loaded(x), other(x))
    with torch.no_grad():
        model[0].weight = torch.ones(4, 4)
        assert_same(program(x), model(x))
    parametrize.remove_parametrizations(model[0], "weight")
    with pytest.raises(ModelMismatch):
        program(x)


# --- adapters ------------------------------------------------------------------------------------


TARGETS = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"], "vit": ["q_proj", "v_proj"]}


def adapted(model: nn.Module, name: str, **settings: Any) -> Any:
    """A model with an adapter that changes what it computes."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=TARGETS[name],
        init_lora_weights=False,
        lora_dropout=0.1,
        **settings,
    )
    with warnings.catch_warnings():
        # What peft asks transformers, and that it cannot merge into quantised weights.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated without")
        return peft.get_peft_model(model, config).eval()


def same(program: hotstart.Program, model: nn.Module, call: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        assert_same(program(**call)[0], model(**call)[0])


@pytest.mark.thorough
@pytest.mark.parametrize("name", BY_MODEL)
def test_a_model_with_an_adapter(name: str, tmp_path: Path) -> None:
    make, given = MODELS[name]
    model, other = (adapted(make(), name) for _ in range(2))
    call = given(2, 7)
    program = build(model, kwargs=call)
    same(program, model, call)
    program.save(tmp_path / "model.hot")
    same(hotstart.load(tmp_path / "model.hot", other), other, call)
    same(hotstart.load(tmp_path / "model.hot", weights=other.state_dict()), other, call)
    merged = other.merge_and_unload()
    same(build(merged, kwargs=call), merged, call)


@pytest.mark.slow
def test_an_adapter_on_quantised_weights() -> None:
    model = adapted(quantised(bert(), "int8 weights"), "bert")
    call = {**ids(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    same(build(model, kwargs=call), model, call)


@pytest.mark.thorough
def test_an_adapter_of_magnitude_and_direction(tmp_path: Path) -> None:
    model, other = (adapted(bert(), "bert", use_dora=True) for _ in range(2))
    call = ids(2, 7)
    build(model, kwargs=call).save(tmp_path / "model.hot")
    same(hotstart.load(tmp_path / "model.hot", other), other, call)


@pytest.mark.thorough
def test_an_adapter_that_is_merged_disabled_scaled_or_switched_is_a_mismatch() -> None:
    peft = pytest.importorskip("peft")
    model = adapted(bert(), "bert")
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=TARGETS["bert"]))
    model.eval()
    call = ids(2, 7)
    program = build(model, kwargs=call)

    def refused(named: str) -> None:
        with pytest.raises(ModelMismatch, match=named):
            program(**call)

    model.merge_adapter()
    refused("merged_adapters")
    model.unmerge_adapter()
    with model.disable_adapter():
        refused(r"_adapters_disabled|_disable_adapters: expected False")
        same(build(model, kwargs=call), model, call)
    model.set_adapter("other")
    refused(r"active_adapter: expected 'default', found 'other'")
    same(build(model, kwargs=call), model, call)
    model.set_adapter("default")
    with peft.helpers.rescale_adapter_scale(model, 0.5):
        refused(r"scaling\['default'\]: expected 2\.0, found 1\.0")
    same(program, model, call)


@pytest.mark.thorough
def test_rows_with_adapters_of_their_own_are_refused() -> None:
    model = adapted(bert(), "bert")
    with pytest.raises(CaptureError, match="register_forward_pre_hook"):
        build(model, kwargs={**ids(2, 7), "adapter_names": ["default", "default"]})
