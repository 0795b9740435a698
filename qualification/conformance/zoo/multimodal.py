"""Models that see images, or hear sound, and read text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import padding_mask, pixels, seeded, tokens

BATCH = Dim("batch", min=1, max=4)
SEQ = Dim("seq", min=2, max=32)
TEXTS = Dim("texts", min=1, max=5)
IMAGES = Dim("images", min=1, max=4)
LAYERS = 4
VOCABULARY = 128
IMAGE_TOKEN = 120
PATCHES = 16
"""How many patches of 8 by 8 pixels an image of 32 by 32 pixels has."""

ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
EYES: dict[str, Any] = {**ENCODER, "image_size": 32, "patch_size": 8}
TEXT: dict[str, Any] = {
    **ENCODER,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER: dict[str, Any] = {**TEXT, "num_key_value_heads": 2, "use_cache": False}
TOWERS: dict[str, Any] = {
    "input_ids": {0: TEXTS, 1: SEQ},
    "attention_mask": {0: TEXTS, 1: SEQ},
    "pixel_values": {0: IMAGES},
}
PAIRS: dict[str, Any] = {
    "input_ids": {0: BATCH, 1: SEQ},
    "attention_mask": {0: BATCH, 1: SEQ},
    "pixel_values": {0: BATCH},
}


def clip(layers: int) -> nn.Module:
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**TEXT, "num_hidden_layers": layers, "projection_dim": 32},
            vision_config={**EYES, "num_hidden_layers": layers, "projection_dim": 32},
            projection_dim=32,
        )
    )


def siglip(layers: int) -> nn.Module:
    return transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config={**TEXT, "num_hidden_layers": layers},
            vision_config={**EYES, "num_hidden_layers": layers},
        )
    )


def siglip2(layers: int) -> nn.Module:
    return transformers.Siglip2Model(
        transformers.Siglip2Config(
            text_config={**TEXT, "num_hidden_layers": layers},
            vision_config={
                **ENCODER,
                "patch_size": 8,
                "num_patches": PATCHES,
                "num_hidden_layers": layers,
            },
        )
    )


def blip(layers: int) -> nn.Module:
    return transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(
            text_config={
                **TEXT,
                "num_hidden_layers": layers,
                "encoder_hidden_size": 64,
                "use_cache": False,
            },
            vision_config={**EYES, "num_hidden_layers": layers, "initializer_range": 0.02},
            projection_dim=32,
            image_text_hidden_size=32,
        )
    )


def llava(layers: int) -> nn.Module:
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config=transformers.LlamaConfig(**DECODER, num_hidden_layers=layers),
            vision_config=transformers.CLIPVisionConfig(
                **EYES, num_hidden_layers=layers, projection_dim=32
            ),
            image_token_index=IMAGE_TOKEN,
            image_seq_length=PATCHES,
        )
    )


def paligemma(layers: int) -> nn.Module:
    return transformers.PaliGemmaForConditionalGeneration(
        transformers.PaliGemmaConfig(
            text_config=transformers.GemmaConfig(
                **DECODER, head_dim=16, num_hidden_layers=layers, num_image_tokens=PATCHES
            ),
            vision_config=transformers.SiglipVisionConfig(
                **EYES, num_hidden_layers=layers, vision_use_head=False, projection_dim=64
            ),
            image_token_index=IMAGE_TOKEN,
            hidden_size=64,
            projection_dim=64,
            vocab_size=VOCABULARY,
        )
    )


def gemma3(layers: int) -> nn.Module:
    kinds = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
    return transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(
            text_config=transformers.Gemma3TextConfig(
                **DECODER,
                head_dim=16,
                num_hidden_layers=layers,
                sliding_window=8,
                layer_types=kinds * (layers // 4),
            ),
            vision_config=transformers.SiglipVisionConfig(
                **EYES, num_hidden_layers=layers, vision_use_head=False
            ),
            image_token_index=IMAGE_TOKEN,
            boi_token_index=IMAGE_TOKEN + 1,
            eoi_token_index=IMAGE_TOKEN + 2,
            mm_tokens_per_image=4,
        )
    )


def internvl(layers: int) -> nn.Module:
    return transformers.InternVLForConditionalGeneration(
        transformers.InternVLConfig(
            text_config=transformers.Qwen2Config(**DECODER, num_hidden_layers=layers),
            vision_config=transformers.InternVLVisionConfig(
                **ENCODER, image_size=[32, 32], patch_size=[8, 8], num_hidden_layers=layers
            ),
            image_token_id=IMAGE_TOKEN,
            image_seq_length=4,
            downsample_ratio=0.5,
        )
    )


def clap() -> nn.Module:
    return transformers.ClapModel(
        transformers.ClapConfig(
            text_config={**TEXT, "num_hidden_layers": LAYERS, "projection_dim": 32},
            audio_config={
                "spec_size": 64,
                "num_mel_bins": 32,
                "window_size": 4,
                "patch_size": 4,
                "patch_stride": (4, 4),
                "hidden_size": 64,
                "patch_embeds_hidden_size": 32,
                "depths": (2, 2),
                "num_hidden_layers": 2,
                "num_attention_heads": (2, 4),
                "projection_dim": 32,
            },
            projection_dim=32,
        )
    )


def towers(sizes: Sizes) -> dict[str, Any]:
    """Some texts and some images, each of which is compared with each."""
    texts, length = sizes["texts"], sizes["seq"]
    ids = tokens(texts, length, 100)
    ids[:, -1] = 2
    return {
        "input_ids": ids,
        "attention_mask": padding_mask(texts, length),
        "pixel_values": pixels(sizes["images"], 32, 32),
    }


def pairs(sizes: Sizes) -> dict[str, Any]:
    """A text for each image."""
    batch, length = sizes["batch"], sizes["seq"]
    return {
        "input_ids": tokens(batch, length, 100),
        "attention_mask": padding_mask(batch, length),
        "pixel_values": pixels(batch, 32, 32),
    }


def prompt(image_tokens: int) -> Callable[[Sizes], dict[str, Any]]:
    """Inputs of a model that reads an image as tokens within its text."""

    def inputs(sizes: Sizes) -> dict[str, Any]:
        batch, length = sizes["batch"], sizes["seq"]
        ids = tokens(batch, length, 100)
        ids[:, 1 : 1 + image_tokens] = IMAGE_TOKEN
        return {
            "input_ids": ids,
            "attention_mask": torch.ones(batch, length, dtype=torch.long),
            "pixel_values": pixels(batch, 32, 32),
        }

    return inputs


def marked_prompt(image_tokens: int) -> Callable[[Sizes], dict[str, Any]]:
    """The same for a model that is told which tokens see one another: those of the image."""

    def inputs(sizes: Sizes) -> dict[str, Any]:
        made = prompt(image_tokens)(sizes)
        return {**made, "token_type_ids": (made["input_ids"] == IMAGE_TOKEN).long()}

    return inputs


def mel(sizes: Sizes) -> Tensor:
    """Spectrograms: batch, channel, time, frequency."""
    return torch.randn(sizes["images"], 1, 100, 32)


def hear(sizes: Sizes) -> dict[str, Any]:
    """Some texts and some sounds."""
    inputs = towers(sizes)
    del inputs["pixel_values"]
    return {**inputs, "input_features": mel(sizes)}


def patched(sizes: Sizes) -> dict[str, Any]:
    """Some texts, and two images in patches, one of which is wide and has less of them."""
    inputs = towers({**sizes, "images": 2})
    seen = torch.ones(2, PATCHES, dtype=torch.long)
    seen[1, 2 * 6 :] = 0
    return {
        **inputs,
        "pixel_values": torch.rand(2, PATCHES, 3 * 8 * 8) * 2 - 1,
        "pixel_attention_mask": seen,
        "spatial_shapes": torch.tensor([[4, 4], [2, 6]]),
    }


def two_towers(name: str, build: Callable[[int], nn.Module], notes: str = "") -> Entry:
    example = {"texts": 3, "seq": 8, "images": 2}
    return Entry(
        name=name,
        family="multimodal",
        make=seeded(lambda: build(LAYERS)),
        inputs=towers,
        dynamic_shapes=TOWERS,
        example=example,
        blocks=2 * LAYERS,
        deeper=seeded(lambda: build(2 * LAYERS)),
        notes=notes,
    )


def one_model(
    name: str,
    build: Callable[[int], nn.Module],
    inputs: Callable[[Sizes], dict[str, Any]],
    dynamic_shapes: dict[str, Any],
    notes: str = "",
) -> Entry:
    example = {"batch": 2, "seq": 24}
    return Entry(
        name=name,
        family="multimodal",
        make=seeded(lambda: build(LAYERS)),
        inputs=inputs,
        dynamic_shapes=dynamic_shapes,
        example=example,
        blocks=2 * LAYERS,
        deeper=seeded(lambda: build(2 * LAYERS)),
        notes=notes,
    )


def reader(
    name: str,
    build: Callable[[int], nn.Module],
    image_tokens: int,
    inputs: Callable[[int], Callable[[Sizes], dict[str, Any]]] = prompt,
    notes: str = "",
) -> Entry:
    """An entry for a model that reads an image as tokens within its text."""
    text = {0: BATCH, 1: Dim("seq", min=image_tokens + 2, max=40)}
    shapes = {"input_ids": text, "attention_mask": text, "pixel_values": {0: BATCH}}
    if inputs is marked_prompt:
        shapes["token_type_ids"] = text
    return one_model(name, build, inputs(image_tokens), shapes, notes)


ENTRIES: tuple[Entry, ...] = (
    two_towers("clip", clip, "as many texts and as many images as there are"),
    two_towers("siglip", siglip),
    Entry(
        name="siglip2",
        family="multimodal",
        make=seeded(lambda: siglip2(LAYERS)),
        inputs=patched,
        dynamic_shapes={"input_ids": {0: TEXTS, 1: SEQ}, "attention_mask": {0: TEXTS, 1: SEQ}},
        example={"texts": 3, "seq": 8},
        blocks=2 * LAYERS,
        deeper=seeded(lambda: siglip2(2 * LAYERS)),
        notes="images of any shape; their positions are interpolated to sizes that a tensor holds",
    ),
    one_model("blip", blip, pairs, PAIRS, "writes captions"),
    reader("llava", llava, PATCHES, notes="a Llama that reads CLIP's features"),
    reader("paligemma", paligemma, PATCHES, marked_prompt, "a Gemma that reads SigLIP's features"),
    reader("gemma3-vision", gemma3, 4, marked_prompt, "pooled image tokens, sliding windows"),
    reader("internvl", internvl, 4, notes="a Qwen2, patches are shuffled into channels"),
    Entry(
        name="clap",
        family="multimodal",
        make=seeded(clap),
        inputs=hear,
        dynamic_shapes={
            "input_ids": {0: TEXTS, 1: SEQ},
            "attention_mask": {0: TEXTS, 1: SEQ},
            "input_features": {0: IMAGES},
        },
        example={"texts": 3, "seq": 8, "images": 2},
        notes="sound and text; the audio tower is a Swin",
    ),
)
