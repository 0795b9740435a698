"""Decoders with a mixture of experts."""

from __future__ import annotations

from functools import partial

from qualification.conformance.zoo.decoders import HEADS_OF_16, WINDOW, kinds
from qualification.conformance.zoo.text import GROUPED, SMALL, Settings, decoder

mixture = partial(decoder, family="mixture of experts")

LOOP: Settings = {**GROUPED, "experts_implementation": "eager"}
"""Experts in a loop over those that have tokens, as in eager mode by default."""

LATENT = {
    **GROUPED,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}

ENTRIES = (
    mixture(
        "qwen3-moe",
        "Qwen3MoeForCausalLM",
        {**HEADS_OF_16, "moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2},
    ),
    mixture(
        "qwen2-moe",
        "Qwen2MoeForCausalLM",
        {
            **GROUPED,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
        notes="a shared expert beside those that are chosen",
    ),
    mixture(
        "mixtral",
        "MixtralForCausalLM",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    mixture(
        "deepseek-v2",
        "DeepseekV2ForCausalLM",
        {**LATENT, "first_k_dense_replace": 1, "topk_method": "group_limited_greedy"},
        notes="latent attention; the first layer is dense",
    ),
    mixture(
        "deepseek-v3",
        "DeepseekV3ForCausalLM",
        {**LATENT, "first_k_dense_replace": 1},
        notes="latent attention; the first layer is dense",
    ),
    mixture(
        "gpt-oss",
        "GptOssForCausalLM",
        {
            **HEADS_OF_16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "layer_types": kinds("sliding", "full"),
        },
        notes="attention sinks, sliding and full attention in turns",
    ),
    mixture(
        "jetmoe",
        "JetMoeForCausalLM",
        {
            **SMALL,
            "use_cache": False,
            "num_key_value_heads": 1,
            "kv_channels": 16,
            "num_attention_heads": 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        layers=2,
        notes="experts of attention, too; each gathers its tokens, however many they are",
    ),
    mixture("olmoe", "OlmoeForCausalLM", {**GROUPED, "num_experts": 8, "num_experts_per_tok": 2}),
    mixture(
        "mixtral-loop",
        "MixtralForCausalLM",
        {**LOOP, "num_local_experts": 4, "num_experts_per_tok": 2},
        layers=2,
        notes="a loop over the experts that have tokens",
    ),
    mixture(
        "olmoe-loop",
        "OlmoeForCausalLM",
        {**LOOP, "num_experts": 8, "num_experts_per_tok": 2},
        layers=2,
        notes="the same, with more experts",
    ),
    mixture(
        "granite-moe",
        "GraniteMoeForCausalLM",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    mixture(
        "phi-moe",
        "PhimoeForCausalLM",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    mixture(
        "glm-4-moe",
        "Glm4MoeForCausalLM",
        {
            **HEADS_OF_16,
            "moe_intermediate_size": 32,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
)
