"""`generate()` of transformers over compiled calls gives the tokens that the model itself gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import hotstart
from hotstart import ArtifactError, ContractError, ModelMismatch, Options, OptionsError
from hotstart.integrations.transformers import Generator, compile_generator, load_generator

EAGER = Options(compiler="op_by_op")
LAYERS = 2
SMALL: dict[str, Any] = {
    "num_hidden_layers": LAYERS,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_layer=LAYERS, n_embd=64, n_head=4, vocab_size=128, bos_token_id=1, eos_token_id=None
    )
    return transformers.GPT2LMHeadModel(config)


def gemma3() -> nn.Module:
    kinds = ["sliding_attention"] * (LAYERS - 1) + ["full_attention"]
    config = transformers.Gemma3TextConfig(
        **SMALL, head_dim=16, sliding_window=8, layer_types=kinds
    )
    return transformers.Gemma3ForCausalLM(config)


def mistral() -> nn.Module:
    config = transformers.MistralConfig(**SMALL, sliding_window=8)
    return transformers.MistralForCausalLM(config)


def made(make: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    return make().eval()


def prompt(length: int, batch: int = 1) -> Tensor:
    return torch.randint(3, 128, (batch, length))


def greedy(model: Any, ids: Tensor, tokens: int, **kwargs: Any) -> Tensor:
    found: Tensor = model.generate(ids, max_new_tokens=tokens, do_sample=False, **kwargs)
    return found


def require_tokens_of_the_model(generator: Generator, tmp_path: Path, batch: int) -> None:
    """Generate as the model does, also once it is saved and loaded."""
    model = generator.model
    generator.save(tmp_path / "model.hot", check=False)
    loaded = load_generator(tmp_path / "model.hot", model)
    for length, tokens in ((1, 100), (2, 5), (24, 5)):
        ids = prompt(length, batch)
        expected = greedy(model, ids, tokens)
        assert torch.equal(greedy(generator, ids, tokens), expected)
        assert torch.equal(greedy(loaded, ids, tokens), expected)


@pytest.mark.slow
def test_a_checkpoint_generates_the_tokens_of_its_model(tmp_path: Path) -> None:
    model = made(llama)
    model.generation_config.eos_token_id = 7
    model.save_pretrained(tmp_path / "checkpoint")
    generator = compile_generator(model, max_length=64, max_prompt=24, options=EAGER)
    greedy(generator, prompt(9), 5)
    generator.save(tmp_path / "model.hot", check=False)
    blobs = {blob.name: blob.size for blob in hotstart.inspect(tmp_path / "model.hot").blobs}
    assert blobs["tensors.safetensors"] < 4096  # the cache was emptied
    loaded = load_generator(tmp_path / "model.hot", weights=tmp_path / "checkpoint")
    assert loaded.program.model is None
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"meta"}
    for length, tokens in ((1, 60), (2, 5), (24, 5)):
        ids = prompt(length)
        expected = greedy(model, ids, tokens)
        assert torch.equal(greedy(loaded, ids, tokens), expected)
    with pytest.raises(OptionsError, match="got neither"):
        load_generator(tmp_path / "model.hot")
    with pytest.raises(OptionsError, match="got both"):
        load_generator(tmp_path / "model.hot", model, weights=tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "config.json").unlink()
    with pytest.raises(OptionsError, match=r"takes a checkpoint with a config\.json beside it"):
        load_generator(tmp_path / "model.hot", weights=tmp_path / "checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(Options(pack_weights="always"), marks=pytest.mark.slow)]
)
def test_prepared_weights_generate_the_tokens_of_the_model(
    options: Options, tmp_path: Path
) -> None:
    model = made(llama)
    checkpoint, weights = tmp_path / "checkpoint", tmp_path / "checkpoint" / "model.weights"
    model.save_pretrained(checkpoint)
    generator = compile_generator(model, max_length=512, max_prompt=24, options=options)
    generator.save(tmp_path / "model.hot", check=False)
    greedy(generator, prompt(9), 5)
    generator.save_weights(weights)
    if options is EAGER:
        cache = sum(t.nbytes for n, t in generator.program.weights.items() if "keys_" in n)
        plain = (checkpoint / "model.safetensors").stat().st_size
        assert weights.stat().st_size < plain + cache  # the cache is not in it
    for given in (weights, [weights, checkpoint], [checkpoint / "none.weights", checkpoint]):
        loaded = load_generator(tmp_path / "model.hot", weights=given)
        assert bool(loaded.program.report.packed.mapped) == (
            options is not EAGER and given != [checkpoint / "none.weights", checkpoint]
        )
        for length, tokens in ((1, 60), (2, 5), (24, 5)):
            ids = prompt(length)
            assert torch.equal(greedy(loaded, ids, tokens), greedy(model, ids, tokens))


@pytest.fixture(scope="module")
def generator() -> Generator:
    return compile_generator(made(llama), max_length=128, max_prompt=24, batch=2, options=EAGER)


@pytest.mark.slow
def test_a_hundred_tokens_are_those_of_the_model(generator: Generator, tmp_path: Path) -> None:
    require_tokens_of_the_model(generator, tmp_path, batch=2)


@pytest.mark.slow
@pytest.mark.parametrize("make", [gpt2, gemma3, mistral])
def test_a_hundred_tokens_are_those_of_other_models(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    generator = compile_generator(made(make), max_length=128, max_prompt=24, options=EAGER)
    require_tokens_of_the_model(generator, tmp_path, batch=1)


@pytest.mark.slow
def test_prompts_with_padding(generator: Generator) -> None:
    ids = prompt(9, batch=2)
    mask = torch.ones_like(ids)
    ids[0, :4], mask[0, :4] = 0, 0
    expected = greedy(generator.model, ids, 20, attention_mask=mask)
    assert torch.equal(greedy(generator, ids, 20, attention_mask=mask), expected)


@pytest.mark.thorough
def test_sampling_draws_the_same_tokens_with_the_same_seed(generator: Generator) -> None:
    ids = prompt(6, batch=2)
    drawn = []
    for model in (generator.model, generator):
        torch.manual_seed(7)
        drawn.append(model.generate(ids, max_new_tokens=12, do_sample=True, top_k=20))
    assert torch.equal(*drawn)


def test_what_generate_returns_beside_the_tokens(generator: Generator) -> None:
    wanted = {"return_dict_in_generate": True, "output_scores": True}
    ids = prompt(4, batch=2)
    found = greedy(generator, ids, 5, **wanted)
    expected = greedy(generator.model, ids, 5, **wanted)
    for mine, theirs in zip(found.scores, expected.scores, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_model_itself_is_left_as_it_was(generator: Generator) -> None:
    before = set(vars(generator.model))
    greedy(generator, prompt(4, batch=2), 2)
    assert set(vars(generator.model)) == before
    assert "forward" not in vars(generator.model)


def test_the_cache_is_written_in_place(generator: Generator) -> None:
    tensors = dict(generator.program.model.named_buffers())
    greedy(generator, prompt(4, batch=2), 3)
    after = dict(generator.program.model.named_buffers())
    assert all(after[name] is tensor for name, tensor in tensors.items())
    assert int(tensors["length_0"]) == 4 + 3 - 1
    assert {w.name for w in generator.program.artifact.requirements.weights if w.mutated} == {
        f"{kind}_{n}" for kind in ("keys", "values", "length") for n in range(LAYERS)
    }


def test_nothing_is_traced_or_compiled_while_generating(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo import convert_frame
    from torch._inductor import compile_fx

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was compiled")

    monkeypatch.setattr(convert_frame, "fullgraph_capture", refuse)
    monkeypatch.setattr(convert_frame, "_compile", refuse)
    monkeypatch.setattr(compile_fx, "compile_fx_inner", refuse)
    greedy(generator, prompt(5, batch=2), 20)


def test_layers_beyond_the_first_cost_no_compile(generator: Generator) -> None:
    decode = next(v for v in generator.program.report.variants if v.name == "decode: static")
    assert decode.pieces - decode.unique == LAYERS - 1


@pytest.mark.parametrize(("length", "tokens"), [(25, 1), (24, 106)])
def test_what_is_too_long_is_refused(generator: Generator, length: int, tokens: int) -> None:
    with pytest.raises(ContractError, match=r"1\.\.24|at most 128"):
        greedy(generator, prompt(length, batch=2), tokens)
    ids = prompt(3, batch=2)
    assert torch.equal(greedy(generator, ids, 4), greedy(generator.model, ids, 4))


def test_beams_are_refused(generator: Generator) -> None:
    with pytest.raises(ContractError, match="beam search"):
        greedy(generator, prompt(4), 4, num_beams=2)
    ids = prompt(3, batch=2)
    assert torch.equal(greedy(generator, ids, 4), greedy(generator.model, ids, 4))


def test_another_cache_is_refused(generator: Generator) -> None:
    with pytest.raises(OptionsError, match="its own cache"):
        greedy(generator, prompt(4, batch=2), 4, past_key_values=transformers.DynamicCache())


def test_hidden_states_were_not_compiled(generator: Generator) -> None:
    wanted = {"return_dict_in_generate": True, "output_hidden_states": True}
    with pytest.raises(ContractError, match="output_hidden_states"):
        greedy(generator, prompt(4, batch=2), 4, **wanted)


def test_other_kinds_of_models_are_refused() -> None:
    config = transformers.T5Config(
        num_layers=1, d_model=16, d_kv=8, d_ff=16, num_heads=2, vocab_size=32
    )
    with pytest.raises(OptionsError, match="decoder only"):
        compile_generator(transformers.T5ForConditionalGeneration(config), max_length=8)
    with pytest.raises(OptionsError, match="generate"):
        compile_generator(nn.Linear(2, 2), max_length=8)
    with pytest.raises(OptionsError, match="max_prompt"):
        compile_generator(made(llama), max_length=8, max_prompt=8)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    program = hotstart.compile(nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), options=EAGER)
    program.save(tmp_path / "linear.hot", check=False)
    with pytest.raises(ArtifactError, match="without a cache"):
        load_generator(tmp_path / "linear.hot", made(llama))


def test_a_model_of_another_size_is_refused(generator: Generator, tmp_path: Path) -> None:
    generator.save(tmp_path / "model.hot", check=False)
    other = transformers.LlamaConfig(**{**SMALL, "intermediate_size": 64})
    with pytest.raises(ModelMismatch, match="up_proj"):
        load_generator(tmp_path / "model.hot", transformers.LlamaForCausalLM(other).eval())


@pytest.mark.slow
@pytest.mark.parametrize("make", [llama, gpt2, gemma3, mistral])
def test_a_hundred_tokens_with_inductor(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = made(make)
    generator = compile_generator(model, max_length=128, max_prompt=24)
    assert generator.program.report.op_by_op == ()
    generator.save(tmp_path / "model.hot")
    loaded = load_generator(tmp_path / "model.hot", model)
    for length in (1, 2, 24):
        ids = prompt(length)
        assert torch.equal(greedy(loaded, ids, 100), greedy(model, ids, 100))
