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
from hotstart import Dim, ModelMismatch, OptionsError
from tests.integration.checkpoints import EAGER, X, saved
from tests.integration.shop import Result, Shop
from tests.processes import run_fresh
from tests.safetensors_files import file_of

pytestmark = pytest.mark.usefixtures("kept_pieces")


BATCH = {"x": {0: Dim("batch", max=8, sizes=[1])}}


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


@pytest.mark.thorough
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


@pytest.mark.thorough
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
        (torch.zeros(16).half(), r"found torch.float16 \[16\] on cpu\nConvert the weights, as by"),
        (torch.zeros(16, device="meta"), "which has no values"),
        (torch.zeros(16).to_sparse(), "torch.sparse_coo"),
    ]
    for wrong, message in cases:
        with pytest.raises(ModelMismatch, match=message) as caught:
            hotstart.load(file, weights={**fitting, "layers.1.up.bias": wrong})
        assert len(caught.value.differences) == 1
    half = {name: tensor.half() for name, tensor in fitting.items()}
    with pytest.raises(ModelMismatch) as caught:
        hotstart.load(file, weights=half)
    assert str(caught.value).count("Convert the weights") == 1
    others = {f"other.{name[::-1]}": tensor for name, tensor in fitting.items()}
    with pytest.raises(ModelMismatch, match="None of its names is one that the program needs"):
        hotstart.load(file, weights=others)
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


@pytest.mark.slow
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


def test_threads_share_a_program(shop: tuple[Shop, Path, Path]) -> None:
    _, file, weights = shop
    program = hotstart.load(file, weights=weights, pack="first_call")
    expected = program(X).scores
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: program(X).scores, range(40)))
    assert all(torch.equal(one, expected) for one in found)


# --- results and arguments ------------------------------------------------------------------------


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_sources_are_compared_where_they_are_found(shop: tuple[Shop, Path, Path]) -> None:
    _, file, weights = shop
    manifest = json.loads(json.dumps(hotstart.inspect(file).fingerprint["sources"]))
    assert "tests.integration.shop" in manifest
    moved = {"PYTHONPATH": ":".join(p for p in sys.path if "site-packages" in p or "src" in p)}
    found = run_fresh(FRESH, file, weights, "auto", **moved)
    assert found["auto"]["type"] == "hotstart.runtime.results"
