"""Dense decoders."""

from __future__ import annotations

from qualification.conformance.zoo.text import GROUPED, RANGES, SMALL, VOCABULARY, decoder

WINDOW = 24
"""Shorter than the longest sequence, so that it shows."""

ALL_HEADS = {**SMALL, "use_cache": False}
HEADS_OF_16 = {**GROUPED, "head_dim": 16}

GPT = {
    "n_layer": lambda layers: layers,
    "n_embd": 64,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}


def kinds(*period: str) -> object:
    """Kinds of attention by layer: `period`, over and over."""
    return lambda layers: [f"{period[i % len(period)]}_attention" for i in range(layers)]


ENTRIES = (
    decoder("llama", "LlamaForCausalLM", seq=RANGES),
    decoder(
        "llama-3",
        "LlamaForCausalLM",
        {
            **GROUPED,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        notes="scaled rotary frequencies, tied embeddings",
    ),
    decoder("qwen2", "Qwen2ForCausalLM"),
    decoder("qwen3", "Qwen3ForCausalLM", HEADS_OF_16),
    decoder(
        "mistral",
        "MistralForCausalLM",
        {**GROUPED, "sliding_window": WINDOW},
        notes="sliding window",
    ),
    decoder(
        "gemma",
        "GemmaForCausalLM",
        HEADS_OF_16,
    ),
    decoder(
        "gemma-2",
        "Gemma2ForCausalLM",
        {
            **HEADS_OF_16,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 16,
            "layer_types": kinds("sliding", "full"),
        },
        notes="sliding and full attention in turns, capped logits",
    ),
    decoder(
        "gemma-3",
        "Gemma3ForCausalLM",
        {
            **HEADS_OF_16,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 16,
            "layer_types": kinds("sliding", "sliding", "full"),
        },
        config="Gemma3TextConfig",
        layers=6,
        notes="two layers with a sliding window for one with full attention",
    ),
    decoder("phi", "PhiForCausalLM", {**GROUPED, "partial_rotary_factor": 0.5}),
    decoder("phi-3", "Phi3ForCausalLM", {**GROUPED, "sliding_window": WINDOW}),
    decoder("gpt-2", "GPT2LMHeadModel", GPT),
    decoder("gpt-j", "GPTJForCausalLM", {**GPT, "rotary_dim": 8}),
    decoder(
        "gpt-neo",
        "GPTNeoForCausalLM",
        {
            **ALL_HEADS,
            "num_layers": lambda layers: layers,
            "num_heads": 4,
            "attention_types": lambda layers: [[["global", "local"], layers // 2]],
            "window_size": WINDOW,
        },
        notes="global and local attention in turns",
    ),
    decoder("gpt-neox", "GPTNeoXForCausalLM", ALL_HEADS),
    decoder("olmo", "OlmoForCausalLM"),
    decoder("olmo-2", "Olmo2ForCausalLM"),
    decoder(
        "olmo-3",
        "Olmo3ForCausalLM",
        {
            **GROUPED,
            "sliding_window": WINDOW,
            "layer_types": kinds("sliding", "sliding", "sliding", "full"),
        },
    ),
    decoder("falcon", "FalconForCausalLM", {**ALL_HEADS, "new_decoder_architecture": False}),
    decoder(
        "falcon-alibi",
        "FalconForCausalLM",
        {**ALL_HEADS, "alibi": True, "parallel_attn": False, "bias": True},
        notes="ALiBi instead of rotary positions",
    ),
    decoder("bloom", "BloomForCausalLM", {**GPT, "hidden_size": 64}),
    decoder("opt", "OPTForCausalLM", {**ALL_HEADS, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    decoder("stablelm", "StableLmForCausalLM"),
    decoder("granite", "GraniteForCausalLM"),
    decoder("starcoder-2", "Starcoder2ForCausalLM", {**GROUPED, "sliding_window": WINDOW}),
    decoder("cohere", "CohereForCausalLM", {**GROUPED, "logit_scale": 1.0}),
    decoder(
        "cohere-2",
        "Cohere2ForCausalLM",
        {
            **GROUPED,
            "logit_scale": 1.0,
            "sliding_window": WINDOW,
            "layer_types": kinds("sliding", "sliding", "sliding", "full"),
        },
        notes="full attention without positions",
    ),
    decoder("glm-4", "Glm4ForCausalLM", HEADS_OF_16),
    decoder("smollm-3", "SmolLM3ForCausalLM"),
    decoder("nemotron", "NemotronForCausalLM"),
    decoder("ernie-4.5", "Ernie4_5ForCausalLM", HEADS_OF_16),
    decoder(
        "exaone-4",
        "Exaone4ForCausalLM",
        {
            **GROUPED,
            "sliding_window": WINDOW,
            "sliding_window_pattern": 4,
            "layer_types": kinds("sliding", "sliding", "sliding", "full"),
        },
    ),
)
