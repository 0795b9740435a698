"""`generate` of transformers with a cache that grows, through a program that was learnt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import hotstart
from tests.capturing import EAGER

pytestmark = pytest.mark.usefixtures("kept_pieces")


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=100,
    )
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


def tokens(model: Any, prompt: int, batch: int = 1) -> Tensor:
    ids = torch.arange(batch * prompt).reshape(batch, prompt) % 99 + 1  # 0 pads, and makes a mask
    found: Tensor = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    return found


@pytest.mark.slow
def test_generate_with_a_cache_that_grows(model: Any) -> None:
    with hotstart.observe(model) as calls:
        tokens(model, 5)
        tokens(model, 7, batch=2)
    lengths = {"batch": 4, "seq": 32, "length": 64}
    program = hotstart.compile(
        model.forward, calls=calls.within(min={"seq": 2}, max=lengths), options=EAGER
    )
    for prompt, batch in ((5, 1), (7, 2), (4, 3), (21, 1)):
        expected = tokens(model, prompt, batch)
        hotstart.install(program)
        assert torch.equal(tokens(model, prompt, batch), expected)
        hotstart.restore(model)
    hotstart.install(program)
    with pytest.raises(hotstart.ContractError, match="seq"):
        tokens(model, 40)
