"""Encoder-decoders, with a length of their own for source and target."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Sizes
from qualification.conformance.zoo.text import BATCH, VOCABULARY, entry, padded, token_ids

SOURCE = Dim("source", min=1, max=64)
TARGET = Dim("target", min=1, max=32)
SHAPES: Mapping[str, Any] = {
    "input_ids": {0: BATCH, 1: SOURCE},
    "attention_mask": {0: BATCH, 1: SOURCE},
    "decoder_input_ids": {0: BATCH, 1: TARGET},
}
MELS = 16
FRAMES = 64
"""What Whisper hears is always of one length."""


def translated(sizes: Sizes) -> dict[str, Any]:
    """A padded source, and a target that begins."""
    source = padded({"batch": sizes["batch"], "seq": sizes["source"]})
    return {**source, "decoder_input_ids": token_ids(sizes["batch"], sizes["target"])}


def heard(sizes: Sizes) -> dict[str, Any]:
    """A spectrogram, and a transcript that begins."""
    return {
        "input_features": torch.randn(sizes["batch"], MELS, FRAMES),
        "decoder_input_ids": token_ids(sizes["batch"], sizes["target"]),
    }


def written(sizes: Sizes) -> dict[str, Any]:
    """What an encoder heard, and a transcript that begins."""
    return {
        "input_ids": token_ids(sizes["batch"], sizes["target"]),
        "encoder_hidden_states": torch.randn(sizes["batch"], FRAMES // 2, 64),
    }


def decoder_of(model: Any) -> nn.Module:
    """The decoder of a model alone."""
    decoder: nn.Module = model.decoder
    return decoder


T5 = {
    "num_layers": lambda layers: layers,
    "num_decoder_layers": lambda layers: layers,
    "d_model": 64,
    "num_heads": 4,
    "d_kv": 16,
    "d_ff": 128,
    "vocab_size": VOCABULARY,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 32,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "use_cache": False,
}
BART = {
    "encoder_layers": lambda layers: layers,
    "decoder_layers": lambda layers: layers,
    "d_model": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    "use_cache": False,
}
WHISPER = {
    **BART,
    "num_mel_bins": MELS,
    "max_source_positions": FRAMES // 2,
    "max_target_positions": 64,
}

translator = partial(
    entry,
    family="encoder-decoders",
    inputs=translated,
    dynamic_shapes=SHAPES,
    example={"batch": 2, "source": 24, "target": 12},
)

ENTRIES = (
    translator("t5", model="T5ForConditionalGeneration", settings=T5),
    translator(
        "flan-t5",
        model="T5ForConditionalGeneration",
        settings={**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        atol=1e-3,  # with these weights eager itself is 2e-4 from what float64 gives
        notes="gated feed-forward; eager is 2e-4 from float64 too",
    ),
    translator("umt5", model="UMT5ForConditionalGeneration", settings=T5),
    translator("bart", model="BartForConditionalGeneration", settings=BART),
    translator("mbart", model="MBartForConditionalGeneration", settings=BART),
    translator("pegasus", model="PegasusForConditionalGeneration", settings=BART),
    translator("marian", model="MarianMTModel", settings=BART),
    translator("m2m-100", model="M2M100ForConditionalGeneration", settings=BART),
    entry(
        "whisper",
        family="encoder-decoders",
        model="WhisperForConditionalGeneration",
        settings=WHISPER,
        inputs=heard,
        dynamic_shapes={"input_features": {0: BATCH}, "decoder_input_ids": {0: BATCH, 1: TARGET}},
        example={"batch": 2, "target": 12},
    ),
    entry(
        "whisper-decoder",
        family="encoder-decoders",
        model="WhisperModel",
        settings={**WHISPER, "output_hidden_states": True},
        inputs=written,
        dynamic_shapes={"input_ids": {0: BATCH, 1: TARGET}, "encoder_hidden_states": {0: BATCH}},
        example={"batch": 2, "target": 12},
        wrap=decoder_of,
        notes="returns the states of every layer",
    ),
)
