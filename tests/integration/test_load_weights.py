"""Programs that run with a checkpoint's weights, and nothing of their model."""

from __future__ import annotations

import concurrent.futures
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, Dim, ModelMismatch, OptionsError
from tests.integration.shop import Counting, Result, Shop
from tests.integration.test_save_and_load import run_fresh
from tests.unit.checkpoint.test_safetensors import file_of

pytestmark = pytest.mark.usefixtures("kept_pieces")

EAGER = hotstart.Options(compiler="op_by_op")
BATCH = {"x": {0: Dim("batch", max=8, sizes=[1])}}
X = torch.randn(3, 8)


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


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


class Wrapper(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(ids).last_hidden_state
        return hidden


class Cache(nn.Module):
    """Writes to a persistent buffer, and to one that is none, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.register_buffer("last", torch.zeros(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        result = self.total + self.last
        self.last.copy_(x)
        return result

    def peek(self, x: Tensor) -> Tensor:
        return self.total * x


def saved(model: nn.Module, file: Path, *args: Any, **given: Any) -> Path:
    program = hotstart.compile(model.eval(), args or (X,), **{"options": EAGER, **given})
    program.save(file, check=given.get("options") is None)
    return file


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, Path, Path]:
    """A model, its program with native code, and its checkpoint."""
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("shop"), Shop().eval()
    file = saved(model, folder / "shop.hot", torch.zeros(4, 8), dynamic_shapes=BATCH, options=None)
    weights = folder / "shop.safetensors"
    weights.write_bytes(file_of(model.state_dict()))
    return model, file, weights


FRESH = """
    import json, sys
    import torch
    import hotstart
    before = set(sys.modules)
    file, weights, *asked = sys.argv[1:]
    found = {}
    for outputs in asked:
        program = hotstart.load(file, weights=weights, outputs=outputs)
        result = program(torch.ones(3, 8))
        more = {name.partition(".")[0] for name in set(sys.modules) - before}
        found[outputs] = {
            "more": sorted(m for m in more - set(sys.stdlib_module_names) if m[:8] != "hotstart"),
            "scores": result.scores.tolist(),
            "notes": result.notes,
            "type": type(result).__module__,
        }
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def fresh(shop: tuple[Shop, Path, Path]) -> dict[str, Any]:
    """What a fresh process finds, for each kind of outputs; the model's own come last."""
    _, file, weights = shop
    return run_fresh(FRESH, file, weights, "auto", "plain", "own")


@pytest.mark.parametrize("outputs", ["auto", "plain", "own"])
def test_a_fresh_process_imports_nothing_of_the_model(
    shop: tuple[Shop, Path, Path], fresh: dict[str, Any], outputs: str
) -> None:
    model, _, _ = shop
    found = fresh[outputs]
    expected = model(torch.ones(3, 8))
    torch.testing.assert_close(torch.tensor(found["scores"]), expected.scores.detach())
    assert tuple(found["notes"]) == expected.notes
    own = outputs == "own"
    assert ("tests" in found["more"]) == own
    assert found["type"] == ("tests.integration.shop" if own else "hotstart.runtime.results")
    assert set(found["more"]) <= {"torch", *(["tests"] if own else [])}


def test_results_are_those_with_the_model(shop: tuple[Shop, Path, Path]) -> None:
    model, file, weights = shop
    expected = hotstart.load(file, model)(X)
    for given in (weights, str(weights), weights.parent, model.state_dict()):
        found = hotstart.load(file, weights=given)(X)
        assert type(found) is Result  # its module is imported here
        assert torch.equal(found.scores, expected.scores)
    with pytest.raises(hotstart.ContractError, match="batch"):
        hotstart.load(file, weights=weights)(torch.zeros(9, 8))


@pytest.mark.parametrize("pack", ["now", "first_call", "background", "never"])
def test_weights_are_packed_when_asked_and_the_rest_released(
    shop: tuple[Shop, Path, Path], pack: Any
) -> None:
    model, file, weights = shop
    content = weights.read_bytes()
    program = hotstart.load(file, weights=weights, pack=pack)
    expected = model(X).scores.detach()
    for _ in range(3):
        torch.testing.assert_close(program(X).scores, expected)
    program.refresh()
    torch.testing.assert_close(program(X).scores, expected)
    program.release_unpacked()
    program.refresh()
    torch.testing.assert_close(program(X).scores, expected)
    assert weights.read_bytes() == content
    assert program.report.pieces == len(program.pieces)
    assert program.model is None
    assert "without a model" in repr(program)


def test_what_is_released_reads_nowhere_and_the_rest_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval()
    options = hotstart.Options(pack_weights="always", prove="off")
    file = tmp_path / "wide.hot"
    hotstart.compile(model, (torch.zeros(4, 256),), options=options).save(file, check=False)
    weights = tmp_path / "wide.safetensors"
    weights.write_bytes(file_of(model.state_dict()))
    program, x = hotstart.load(file, weights=weights), torch.randn(4, 256)
    expected = model(x).detach()
    freed = program.release_unpacked()
    assert freed == program.report.packed.bytes > 0
    torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-4)


ENDS_AT_ONCE = """
    import json, sys
    import torch
    import hotstart
    program = hotstart.load(sys.argv[1], weights=sys.argv[2], pack="background")
    program(torch.zeros(4, 1024))
    print(json.dumps({}))
"""


def test_a_process_may_end_while_weights_are_packed(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(12))).eval()
    options = hotstart.Options(pack_weights="always", prove="off")
    file, weights = tmp_path / "wide.hot", tmp_path / "wide.pt"
    hotstart.compile(model, (torch.zeros(4, 1024),), options=options).save(file, check=False)
    torch.save(model.state_dict(), weights)
    run_fresh(ENDS_AT_ONCE, file, weights)


def test_one_of_model_and_weights_is_needed(shop: tuple[Shop, Path, Path]) -> None:
    model, file, weights = shop
    with pytest.raises(OptionsError, match="model, weights: got neither, takes one"):
        hotstart.load(file)
    with pytest.raises(OptionsError, match="model, weights: got both, takes one"):
        hotstart.load(file, model, weights=weights)
    for policy in ("eager", "compile"):
        with pytest.raises(OptionsError, match=f"on_miss: got '{policy}' with weights"):
            hotstart.load(file, weights=weights, on_miss=policy)  # type: ignore[arg-type]
    for given in ("model.safetensors", weights, model.state_dict()):
        with pytest.raises(OptionsError, match=r"model: got a .* Pass a checkpoint as"):
            hotstart.load(file, given)  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="weights: got a list, takes a file"):
        hotstart.load(file, weights=[weights])  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="outputs: got 'mine'"):
        hotstart.load(file, weights=weights, outputs="mine")  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="loaded with weights, takes one with a model"):
        hotstart.install(hotstart.load(file, weights=weights))


# --- what no checkpoint holds ---------------------------------------------------------------------


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
    from hotstart.saving import packed

    model = Rotary().eval()
    artifact = hotstart.compile(model, (X,), options=EAGER).artifact
    write(tmp_path / "old.hot", packed(replace(artifact, left_out=None)))
    with pytest.raises(ModelMismatch, match="does not hold what checkpoints leave out"):
        hotstart.load(tmp_path / "old.hot", weights=model.state_dict())


# --- names ----------------------------------------------------------------------------------------


def test_any_name_of_a_tied_weight_serves_all(tmp_path: Path) -> None:
    model, ids = Tied(), torch.tensor([1, 2])
    file = saved(model, tmp_path / "tied.hot", ids)
    weight = model.embed.weight.detach()
    for weights in (
        {"embed.weight": weight},
        {"head.weight": weight},
        {"head.weight": weight, "embed.weight": weight.clone()},
    ):
        assert torch.equal(hotstart.load(file, weights=weights)(ids), model(ids).detach())
    with pytest.raises(ModelMismatch, match=r"which embed\.weight and head\.weight share"):
        hotstart.load(file, weights={"head.weight": weight + 1, "embed.weight": weight})


def test_what_does_not_fit_is_named(shop: tuple[Shop, Path, Path]) -> None:
    model, file, _ = shop
    fitting = model.state_dict()
    cases: list[tuple[Tensor, str]] = [
        (torch.zeros(9), r"layers.1.up.bias: expected .*\[16\], found .*\[9\]"),
        (torch.zeros(16).half(), r"found torch.float16 \[16\] on cpu. Convert the checkpoint"),
        (torch.zeros(16, device="meta"), "which has no values"),
        (torch.zeros(16).to_sparse(), "torch.sparse_coo"),
    ]
    for wrong, message in cases:
        with pytest.raises(ModelMismatch, match=message) as caught:
            hotstart.load(file, weights={**fitting, "layers.1.up.bias": wrong})
        assert len(caught.value.differences) == 1
    renamed = {name.replace("1.up", "1.grow"): tensor for name, tensor in fitting.items()}
    with pytest.raises(ModelMismatch, match=r"nothing of that name; near: layers.1.grow.bias"):
        hotstart.load(file, weights=renamed)
    hotstart.load(file, weights={**fitting, "pooler.weight": torch.zeros(3)})


def test_a_weight_of_another_layout_is_laid_out(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).eval()
    x = torch.randn(1, 3, 8, 8)
    file = saved(model, tmp_path / "conv.hot", x)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    assert torch.equal(hotstart.load(file, weights=weights)(x), model(x).detach())


def test_a_checkpoint_of_the_whole_model_serves_a_part(tmp_path: Path) -> None:
    whole = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))).eval()
    for parameter in whole.parameters():
        parameter.requires_grad_(False)
    program = hotstart.compile_submodule(whole, "1", (X,), options=EAGER)
    program.save(tmp_path / "part.hot", check=False)
    hotstart.restore(whole[1])
    loaded = hotstart.load(tmp_path / "part.hot", weights=whole.state_dict())
    assert torch.equal(loaded(X), whole[1](X))
    loaded = hotstart.load(tmp_path / "part.hot", weights=whole[1].state_dict())
    assert torch.equal(loaded(X), whole[1](X))


def test_checkpoints_of_transformers_serve_body_and_head(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 20}
    config = transformers.BertConfig(**sizes, intermediate_size=8, attn_implementation="sdpa")
    head = transformers.BertForMaskedLM(config).eval()
    body = head.bert
    ids = torch.tensor([[1, 2, 3]])
    expected = body(ids).last_hidden_state.detach()
    file = saved(body, tmp_path / "body.hot", ids)
    wrapped = saved(Wrapper(body), tmp_path / "wrapped.hot", ids)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    oldest = dict(head.state_dict())
    for new, name in old.items():
        oldest = {key.replace(new, name): tensor for key, tensor in oldest.items()}
    for weights in (body.state_dict(), head.state_dict(), oldest):
        assert torch.equal(hotstart.load(file, weights=weights)(ids)[0], expected)
        assert torch.equal(hotstart.load(wrapped, weights=weights)(ids), expected)
    head.save_pretrained(tmp_path / "checkpoint")
    assert torch.equal(hotstart.load(file, weights=tmp_path / "checkpoint")(ids)[0], expected)
    whole = saved(head, tmp_path / "head.hot", ids)
    found = hotstart.load(whole, weights=tmp_path / "checkpoint")(ids)
    assert torch.equal(found.logits, head(ids).logits.detach())
    with pytest.raises(ModelMismatch, match=r"cls\.predictions\.transform\.dense\.weight"):
        hotstart.load(whole, weights=body.state_dict())


# --- what calls change ----------------------------------------------------------------------------


def test_state_lives_in_the_program(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    calls = {"add": Call(args=(x,)), "peek": Call(args=(x,), method="peek")}
    program = hotstart.compile(Cache(), calls=calls, options=EAGER)
    program.save(tmp_path / "cache.hot", check=False)
    given = {"total": torch.ones(4)}
    weights = tmp_path / "cache.safetensors"
    weights.write_bytes(content := file_of(given))
    for source in (given, weights):
        one, two = (hotstart.load(tmp_path / "cache.hot", weights=source) for _ in range(2))
        assert one(x).tolist() == [1, 2, 3, 4]
        assert one["add"](x).tolist() == [1, 4, 7, 10]
        assert one["peek"](x).tolist() == [0, 3, 10, 21]
        assert two(x).tolist() == [1, 2, 3, 4]
    assert given["total"].tolist() == [1, 1, 1, 1]
    assert weights.read_bytes() == content


def test_the_mode_of_a_load_is_not_that_of_calls(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    file, weights = saved(Cache(), tmp_path / "cache.hot", x), {"total": torch.ones(4)}
    with torch.inference_mode(), torch.device("meta"):
        program = hotstart.load(file, weights=weights)
    assert program(x).tolist() == [1, 2, 3, 4]
    with torch.inference_mode():
        assert program(x).tolist() == [1, 4, 7, 10]
    assert program(x).tolist() == [1, 5, 9, 13]


class Counters(nn.Module):
    """Writes to equal buffers that no checkpoint holds, differently."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abc":
            self.register_buffer(name, torch.arange(2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.a.add_(x)
        self.b.sub_(x)
        return torch.stack([self.a, self.b, self.c])


def test_equal_buffers_that_are_written_to_are_apart(tmp_path: Path) -> None:
    x = torch.ones(2)
    program = hotstart.load(saved(Counters(), tmp_path / "counters.hot", x), weights={})
    program(x)
    assert program(x).tolist() == [[2, 3], [-2, -1], [0, 1]]


def test_attributes_that_calls_replace_are_read_by_the_next(tmp_path: Path) -> None:
    file = saved(Counting(), tmp_path / "counting.hot", torch.zeros(2))
    program = hotstart.load(file, weights=Counting().state_dict())
    assert [program(torch.zeros(2))[0].item() for _ in range(3)] == [1, 2, 3]


def test_statistics_go_on_from_those_of_the_checkpoint(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 8)).train()
    hotstart.compile(model, (X,), options=EAGER).save(tmp_path / "norm.hot", check=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = hotstart.load(tmp_path / "norm.hot", weights=state)
    for _ in range(3):
        assert torch.equal(program(X), model(X).detach())
    assert state["0.num_batches_tracked"] == 0


def test_weights_of_a_mapping_that_are_written_to_are_prepared_again(tmp_path: Path) -> None:
    model = nn.Linear(256, 256).eval()
    options = hotstart.Options(pack_weights="always", prove="off")
    x = torch.randn(4, 256)
    hotstart.compile(model, (x,), options=options).save(tmp_path / "linear.hot", check=False)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = hotstart.load(tmp_path / "linear.hot", weights=weights)
    torch.testing.assert_close(program(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    weights["weight"].mul_(2)
    model.weight.data.mul_(2)
    torch.testing.assert_close(program(x), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_weights_of_a_file_are_prepared_again_after_who_asked_for_them_wrote(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    x = torch.randn(3, 8)
    options = hotstart.Options(pack_weights="always")
    file = saved(model, tmp_path / "model.hot", x, options=options)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    program = hotstart.load(file, weights=tmp_path / "model.pt")
    program(x)
    for _ in range(2):
        with torch.no_grad():
            program.weights["0.weight"].mul_(2.0)
            model[0].weight.mul_(2.0)
            torch.testing.assert_close(program(x), model(x))


def test_threads_share_a_program(shop: tuple[Shop, Path, Path]) -> None:
    _, file, weights = shop
    program = hotstart.load(file, weights=weights, pack="first_call")
    expected = program(X).scores
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: program(X).scores, range(40)))
    assert all(torch.equal(one, expected) for one in found)


# --- results and arguments ------------------------------------------------------------------------


def test_a_plain_result_is_read_as_the_models_own(tmp_path: Path) -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Any:
            hidden = x * 2
            return outputs.BaseModelOutput(last_hidden_state=hidden, attentions=(hidden, None))

    file = saved(Model(), tmp_path / "model.hot")
    own, plain = (hotstart.load(file, weights={}, outputs=o)(X) for o in ("auto", "plain"))
    assert type(own) is outputs.BaseModelOutput
    assert type(plain).__name__ == "BaseModelOutput"
    for result in (own, plain):
        assert torch.equal(result.last_hidden_state, X * 2)
        assert torch.equal(result["last_hidden_state"], X * 2)
        assert torch.equal(result[0], X * 2)
        assert torch.equal(result.to_tuple()[0], X * 2)
        assert torch.equal(result[1][0], X * 2)
        assert result.hidden_states is None
        assert "hidden_states" not in result
        assert list(result) == list(result.keys()) == ["last_hidden_state", "attentions"]
        assert len(result) == 2
    again = pickle.loads(pickle.dumps(plain))
    assert type(again) is type(plain)
    assert torch.equal(again[0], plain[0])
    assert repr(plain).startswith("BaseModelOutput(last_hidden_state=")


def test_a_call_that_takes_an_object_of_a_library_needs_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model(nn.Module):
        def forward(self, given: Result) -> Tensor:
            return given.scores + 1

    file = saved(Model(), tmp_path / "model.hot", Result(X))
    assert torch.equal(hotstart.load(file, weights={})(Result(X)), X + 1)
    monkeypatch.delitem(sys.modules, "tests.integration.shop")
    with pytest.raises(hotstart.ArtifactError, match=r"Import tests\.integration\.shop before"):
        hotstart.load(file, weights={})
    assert "tests.integration.shop" not in sys.modules


def test_sources_are_compared_where_they_are_found(shop: tuple[Shop, Path, Path]) -> None:
    _, file, weights = shop
    manifest = json.loads(json.dumps(hotstart.inspect(file).fingerprint["sources"]))
    assert "tests.integration.shop" in manifest
    moved = {"PYTHONPATH": ":".join(p for p in sys.path if "site-packages" in p or "src" in p)}
    found = run_fresh(FRESH, file, weights, "auto", **moved)
    assert found["auto"]["type"] == "hotstart.runtime.results"
