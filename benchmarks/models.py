"""The models that benchmarks measure."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def llama(layers: int) -> LlamaForCausalLM:
    """A small Llama with random weights, the same in every process."""
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=256,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=768,
        vocab_size=1024,
        use_cache=False,
    )
    return LlamaForCausalLM(config).eval()


def tokens(batch: int = 1, length: int = 16) -> torch.Tensor:
    """Token ids for `llama`."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 1024, (batch, length), generator=generator)
