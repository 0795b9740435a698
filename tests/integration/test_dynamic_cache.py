"""transformers' `DynamicCache` as an argument: it grows as in eager."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.integrations.executorch import register_dynamic_cache_export_support

import hotstart
from hotstart import Dim
from tests.semantics import mostly_eager


@pytest.mark.thorough
@mostly_eager
def test_a_dynamic_cache_that_the_caller_passes_grows(compiler: str) -> None:
    model = tiny_llama()
    register_dynamic_cache_export_support()  # which makes no difference
    ids = torch.randint(0, 64, (1, 1))
    past = Dim("past", min=1, max=64)
    layer = {"keys": {2: past}, "values": {2: past}}
    program = hotstart.compile(
        model,
        kwargs={"input_ids": ids, "past_key_values": filled(model, 5)},
        dynamic_shapes={"past_key_values": {"layers": [layer, layer]}},
        options=hotstart.Options(compiler=compiler),
    )
    mine = filled(model, 3)
    theirs = copy.deepcopy(mine)
    with torch.no_grad():
        for step in range(4):
            found = program(input_ids=ids + step, past_key_values=mine)
            expected = model(input_ids=ids + step, past_key_values=theirs)
            torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
            assert found.past_key_values is mine
    for found_layer, layer in zip(mine.layers, theirs.layers, strict=True):
        assert found_layer.keys.shape[2] == 7
        torch.testing.assert_close(found_layer.keys, layer.keys, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found_layer.values, layer.values, rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
def test_an_empty_cache_is_filled() -> None:
    model = tiny_llama()
    ids = torch.randint(0, 64, (1, 4))
    mine, theirs = DynamicCache(), DynamicCache()
    kwargs = {"input_ids": ids, "past_key_values": DynamicCache()}
    program = hotstart.compile(model, kwargs=kwargs, options=hotstart.Options(compiler="op_by_op"))
    with torch.no_grad():
        found, expected = program(ids, past_key_values=mine), model(ids, past_key_values=theirs)
    assert torch.equal(found.logits, expected.logits)
    assert len(mine.layers) == len(theirs.layers) == 2
    for found_layer, layer in zip(mine.layers, theirs.layers, strict=True):
        assert type(found_layer) is type(layer)
        assert vars(found_layer).keys() == vars(layer).keys()
        assert torch.equal(found_layer.keys, layer.keys)


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def filled(model: LlamaForCausalLM, length: int) -> DynamicCache:
    cache = DynamicCache()
    with torch.no_grad():
        model(torch.randint(0, 64, (1, length)), past_key_values=cache)
    return cache
