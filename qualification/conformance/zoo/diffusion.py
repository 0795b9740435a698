"""One step of models that turn noise into images, and their decoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import seeded

BATCH = Dim("batch", min=1, max=4)
SEQ = Dim("seq", min=1, max=32)
HEIGHT = Dim("height", min=8, max=24)
WIDTH = Dim("width", min=8, max=24)
LAYERS = 4
HEADS: dict[str, Any] = {"num_attention_heads": 4, "attention_head_dim": 16}


def unet_with_text() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=2,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def unet() -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=2,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def dit(layers: int) -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        **HEADS, num_layers=layers, sample_size=16, norm_num_groups=8, num_embeds_ada_norm=100
    )


def pixart(layers: int) -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        **HEADS,
        num_layers=layers,
        sample_size=16,
        norm_num_groups=8,
        cross_attention_dim=64,
        caption_channels=32,
        num_embeds_ada_norm=100,
        use_additional_conditions=False,
    )


def sd3(layers: int) -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        **HEADS,
        num_layers=layers,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pooled_projection_dim=48,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


def flux(layers: int) -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        **HEADS,
        in_channels=16,
        num_layers=layers,
        num_single_layers=layers,
        joint_attention_dim=32,
        pooled_projection_dim=48,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )


def sana(layers: int) -> nn.Module:
    return diffusers.SanaTransformer2DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=32,
        sample_size=16,
    )


class Decoder(nn.Module):
    """The half of an autoencoder that serves: latents to images."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=2,
            norm_num_groups=8,
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents, return_dict=False)[0]


class Encoder(nn.Module):
    """The other half: images to the distribution of latents."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = Decoder().vae

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        found = self.vae.encode(pixel_values).latent_dist
        return found.mean, found.std


def latents(sizes: Sizes, channels: int = 4) -> Tensor:
    return torch.randn(sizes["batch"], channels, sizes["height"], sizes["width"])


def steps(sizes: Sizes) -> Tensor:
    return torch.randint(0, 100, (sizes["batch"],))


def caption(sizes: Sizes) -> Tensor:
    return torch.randn(sizes["batch"], sizes["seq"], 32)


def flux_inputs(sizes: Sizes) -> dict[str, Any]:
    """Latents packed two by two, and where each of them is in the image."""
    places = torch.zeros(sizes["packed"], 3)
    places[:, 1] = torch.arange(sizes["packed"]) // 4
    places[:, 2] = torch.arange(sizes["packed"]) % 4
    return {
        "hidden_states": torch.randn(sizes["batch"], sizes["packed"], 16),
        "encoder_hidden_states": caption(sizes),
        "pooled_projections": torch.randn(sizes["batch"], 48),
        "timestep": torch.rand(sizes["batch"]),
        "img_ids": places,
        "txt_ids": torch.zeros(sizes["seq"], 3),
        "guidance": torch.full((sizes["batch"],), 3.5),
    }


SAMPLE = {0: BATCH, 2: HEIGHT, 3: WIDTH}
EXAMPLE: Sizes = {"batch": 2, "height": 16, "width": 12}
WITH_TEXT: Sizes = {**EXAMPLE, "seq": 7}


def transformer(
    name: str,
    build: Callable[[int], nn.Module],
    inputs: Callable[[Sizes], dict[str, Any]],
    dynamic_shapes: dict[str, Any],
    example: Sizes,
    notes: str = "",
    kinds: int = 1,
) -> Entry:
    """An entry for a diffusion transformer with `kinds` kinds of layers."""
    return Entry(
        name=name,
        family="diffusion",
        make=seeded(lambda: build(LAYERS)),
        inputs=inputs,
        dynamic_shapes=dynamic_shapes,
        example=example,
        blocks=kinds * LAYERS,
        deeper=seeded(lambda: build(2 * LAYERS)),
        notes=notes,
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="unet-2d-condition",
        family="diffusion",
        make=seeded(unet_with_text),
        inputs=lambda sizes: {
            "sample": latents(sizes),
            "timestep": torch.tensor(7),
            "encoder_hidden_states": caption(sizes),
        },
        dynamic_shapes={
            # Odd sizes take another way than even ones through the model.
            "sample": {0: BATCH, 2: Dim("height", min=12, max=16), 3: Dim("width", min=8, max=12)},
            "encoder_hidden_states": {0: BATCH, 1: SEQ},
        },
        example=WITH_TEXT,
        notes="the U-Net of Stable Diffusion: residual blocks, self- and cross-attention",
    ),
    Entry(
        name="unet-2d",
        family="diffusion",
        make=seeded(unet),
        inputs=lambda sizes: {
            "sample": torch.randn(sizes["batch"], 3, 16, 16),
            "timestep": steps(sizes),
        },
        dynamic_shapes={"sample": {0: BATCH}, "timestep": {0: BATCH}},
        example={"batch": 2},
        notes="without text; a step of its own for every image; odd sizes are none of the model's",
    ),
    transformer(
        "dit",
        dit,
        lambda sizes: {
            "hidden_states": torch.randn(sizes["batch"], 4, 16, 16),
            "timestep": steps(sizes),
            "class_labels": steps(sizes),
        },
        {"hidden_states": {0: BATCH}, "timestep": {0: BATCH}, "class_labels": {0: BATCH}},
        {"batch": 2},
        "adaptive layer norms",
    ),
    transformer(
        "pixart",
        pixart,
        lambda sizes: {
            "hidden_states": latents(sizes),
            "encoder_hidden_states": caption(sizes),
            "timestep": steps(sizes),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        },
        {
            # Position embeddings are a table for the size that is configured, and else computed.
            "hidden_states": {
                0: BATCH,
                2: Dim("height", min=14, max=19),
                3: Dim("width", min=12, max=15),
            },
            "encoder_hidden_states": {0: BATCH, 1: SEQ},
            "timestep": {0: BATCH},
        },
        WITH_TEXT,
        "cross-attention to a caption",
    ),
    transformer(
        "sd3",
        sd3,
        lambda sizes: {
            "hidden_states": latents(sizes),
            "encoder_hidden_states": caption(sizes),
            "pooled_projections": torch.randn(sizes["batch"], 48),
            "timestep": steps(sizes),
        },
        {
            "hidden_states": SAMPLE,
            "encoder_hidden_states": {0: BATCH, 1: SEQ},
            "pooled_projections": {0: BATCH},
            "timestep": {0: BATCH},
        },
        WITH_TEXT,
        "joint attention of image and text; the last layer drops the text",
    ),
    transformer(
        "flux",
        flux,
        flux_inputs,
        {
            "hidden_states": {0: BATCH, 1: Dim("packed", min=4, max=64)},
            "encoder_hidden_states": {0: BATCH, 1: SEQ},
            "pooled_projections": {0: BATCH},
            "timestep": {0: BATCH},
            "img_ids": {0: Dim("packed", min=4, max=64)},
            "txt_ids": {0: SEQ},
            "guidance": {0: BATCH},
        },
        {"batch": 2, "packed": 24, "seq": 7},
        "two-stream layers, then one-stream layers; rotary positions",
        kinds=2,
    ),
    transformer(
        "sana",
        sana,
        lambda sizes: {
            "hidden_states": latents(sizes),
            "encoder_hidden_states": caption(sizes),
            "timestep": steps(sizes),
        },
        {
            "hidden_states": SAMPLE,
            "encoder_hidden_states": {0: BATCH, 1: SEQ},
            "timestep": {0: BATCH},
        },
        WITH_TEXT,
        "linear attention, convolutions in the feed-forward layers",
    ),
    Entry(
        name="autoencoder-kl-decoder",
        family="diffusion",
        make=seeded(Decoder),
        inputs=lambda sizes: {"latents": latents(sizes)},
        dynamic_shapes={"latents": SAMPLE},
        example=EXAMPLE,
        notes="latents to pixels",
    ),
    Entry(
        name="autoencoder-kl-encoder",
        family="diffusion",
        make=seeded(Encoder),
        inputs=lambda sizes: {"pixel_values": latents(sizes, 3)},
        dynamic_shapes={"pixel_values": SAMPLE},
        example=EXAMPLE,
        notes="pixels to the distribution of latents",
    ),
)
