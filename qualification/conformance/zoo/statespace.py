"""State-space models, and hybrids of them with attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from hotstart import Dim
from qualification.conformance.zoo.decoders import HEADS_OF_16
from qualification.conformance.zoo.entry import Entry
from qualification.conformance.zoo.text import GROUPED, VOCABULARY, decoder

LENGTHS = Dim("seq", ranges=[], sizes=[1, 8, 24])
"""A scan that is unrolled as it is captured is another graph for every length."""

CHUNKED = Dim("seq", ranges=[], sizes=[1, 24])
"""One chunk, and two; what is not a whole chunk is filled up, which is another graph too."""

state_space = partial(decoder, family="state space and hybrids")


def called_once(entry: Entry) -> Entry:
    """Call models once when they are made, as the error of a model asks for that is not."""

    def called(make: Callable[[], nn.Module]) -> nn.Module:
        model = make()
        with torch.no_grad():
            model(**entry.inputs(entry.example))
        return model

    assert entry.deeper is not None
    return replace(entry, make=partial(called, entry.make), deeper=partial(called, entry.deeper))


CHUNK = 16
"""Shorter than the longest sequence, which is computed in several."""

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MAMBA = {
    **SPECIAL,
    "num_hidden_layers": lambda layers: layers,
    "hidden_size": 64,
    "vocab_size": VOCABULARY,
    "state_size": 8,
    "use_cache": False,
}

ENTRIES = (
    state_space(
        "mamba", "MambaForCausalLM", {**MAMBA, "time_step_rank": 8}, seq=LENGTHS, exact=False
    ),
    called_once(
        state_space(
            "rwkv",
            "RwkvForCausalLM",
            {
                "num_hidden_layers": lambda layers: layers,
                "hidden_size": 64,
                "vocab_size": VOCABULARY,
                "use_cache": False,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            seq=LENGTHS,
            notes="called once, which sets that weights are rescaled, by 1 for few layers",
        )
    ),
    state_space(
        "mamba-2",
        "Mamba2ForCausalLM",
        {**MAMBA, "num_heads": 8, "head_dim": 16, "n_groups": 2, "chunk_size": CHUNK},
        seq=CHUNKED,
    ),
    state_space(
        "falcon-mamba",
        "FalconMambaForCausalLM",
        {**MAMBA, "time_step_rank": 8},
        seq=LENGTHS,
        exact=False,
    ),
    state_space(
        "bamba",
        "BambaForCausalLM",
        {
            **GROUPED,
            "attn_layer_indices": lambda layers: list(range(1, layers, 2)),
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "mamba_chunk_size": CHUNK,
        },
        seq=CHUNKED,
        notes="Mamba-2 and attention in turns",
    ),
    state_space(
        "falcon-h1",
        "FalconH1ForCausalLM",
        {
            **GROUPED,
            "mamba_d_ssm": 128,
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "mamba_chunk_size": CHUNK,
        },
        seq=CHUNKED,
        notes="Mamba-2 beside attention in every layer",
    ),
    state_space(
        "jamba",
        "JambaForCausalLM",
        {
            **GROUPED,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
            "use_mamba_kernels": False,
        },
        seq=LENGTHS,
        exact=False,
        notes="Mamba, attention and experts",
    ),
    state_space(
        "qwen3-next",
        "Qwen3NextForCausalLM",
        {
            **HEADS_OF_16,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        seq=CHUNKED,
        notes="gated delta rule, gated attention and experts",
    ),
    state_space(
        "lfm-2",
        "Lfm2ForCausalLM",
        {
            **GROUPED,
            "layer_types": lambda layers: ["conv", "full_attention"] * (layers // 2),
            "block_auto_adjust_ff_dim": False,
        },
        notes="short convolutions and attention in turns",
    ),
)
