"""Models that see images: classifiers, backbones, detection and segmentation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import pixels, seeded

BATCH = Dim("batch", min=1, max=4)
IMAGES = {"pixel_values": {0: BATCH}}
HEIGHT = Dim("height", min=32, max=96)
WIDTH = Dim("width", min=32, max=96)
ROWS = Dim("rows", min=2, max=8)
COLUMNS = Dim("columns", min=2, max=8)
IMAGES_OF_ANY_SIZE = {"pixel_values": {0: BATCH, 2: HEIGHT, 3: WIDTH}}
ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
SQUARE: dict[str, Any] = {"image_size": 32, "patch_size": 8}


def square(sizes: Sizes) -> dict[str, Any]:
    return {"pixel_values": pixels(sizes["batch"], 32, 32)}


def any_size(sizes: Sizes) -> dict[str, Any]:
    return {"pixel_values": pixels(sizes["batch"], sizes["height"], sizes["width"])}


def vit(layers: int) -> nn.Module:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**ENCODER, **SQUARE, num_hidden_layers=layers, num_labels=10)
    )


def deit(layers: int) -> nn.Module:
    return transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(**ENCODER, **SQUARE, num_hidden_layers=layers, num_labels=10)
    )


def beit(layers: int) -> nn.Module:
    return transformers.BeitForImageClassification(
        transformers.BeitConfig(
            **ENCODER,
            **SQUARE,
            num_hidden_layers=layers,
            num_labels=10,
            use_relative_position_bias=True,
            use_shared_relative_position_bias=False,
        )
    )


def dinov2(layers: int) -> nn.Module:
    return transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=64, num_attention_heads=4, mlp_ratio=2, **SQUARE, num_hidden_layers=layers
        )
    )


def dinov3(layers: int) -> nn.Module:
    return transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(
            **ENCODER, **SQUARE, num_hidden_layers=layers, num_register_tokens=2
        )
    )


def swin(layers: int) -> nn.Module:
    return transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=32,
            depths=[2, layers],
            num_heads=[2, 4],
            window_size=4,
            num_labels=10,
        )
    )


def swin_any_size() -> nn.Module:
    return transformers.SwinModel(
        transformers.SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[1, 2],
            window_size=4,
        )
    )


def swin_stages(layers: int) -> nn.Module:
    return transformers.SwinModel(
        transformers.SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[1, 2, layers],
            num_heads=[1, 2, 2],
            window_size=4,
            output_hidden_states=True,
        )
    )


def swinv2(layers: int) -> nn.Module:
    return transformers.Swinv2ForImageClassification(
        transformers.Swinv2Config(
            image_size=32,
            patch_size=2,
            embed_dim=32,
            depths=[2, layers],
            num_heads=[2, 4],
            window_size=4,
            num_labels=10,
        )
    )


def convnext(layers: int) -> nn.Module:
    return transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(
            hidden_sizes=[16, 32, 64],
            depths=[1, layers, 1],
            num_stages=3,
            layer_scale_init_value=1.0,
            num_labels=10,
        )
    )


def convnextv2(layers: int) -> nn.Module:
    return transformers.ConvNextV2ForImageClassification(
        transformers.ConvNextV2Config(
            hidden_sizes=[16, 32, 64], depths=[1, layers, 1], num_stages=3, num_labels=10
        )
    )


def resnet(layers: int) -> nn.Module:
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=16,
            hidden_sizes=[32, 64, 64],
            depths=[1, layers, 1],
            layer_type="bottleneck",
            num_labels=10,
        )
    )


def regnet(layers: int) -> nn.Module:
    return transformers.RegNetForImageClassification(
        transformers.RegNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[1, layers, 1],
            groups_width=8,
            num_labels=10,
        )
    )


def efficientnet(layers: int) -> nn.Module:
    return transformers.EfficientNetForImageClassification(
        transformers.EfficientNetConfig(
            image_size=64,
            width_coefficient=0.5,
            depth_coefficient=1.0,
            kernel_sizes=[3, 3, 5],
            in_channels=[32, 16, 24],
            out_channels=[16, 24, 40],
            strides=[1, 2, 2],
            num_block_repeats=[1, 2, layers],
            expand_ratios=[1, 6, 6],
            hidden_dim=640,
            num_labels=10,
        )
    )


def mobilenet_v2() -> nn.Module:
    return transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(
            image_size=64, depth_multiplier=0.35, num_labels=10, output_stride=32
        )
    )


def mobilevit() -> nn.Module:
    return transformers.MobileViTForImageClassification(
        transformers.MobileViTConfig(
            image_size=64,
            hidden_sizes=[32, 48, 64],
            neck_hidden_sizes=[8, 16, 16, 24, 32, 40, 64],
            num_attention_heads=4,
            num_labels=10,
        )
    )


def segformer(layers: int) -> nn.Module:
    return transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(
            num_encoder_blocks=3,
            depths=[1, layers, 1],
            sr_ratios=[4, 2, 1],
            hidden_sizes=[16, 32, 64],
            patch_sizes=[7, 3, 3],
            strides=[4, 2, 2],
            num_attention_heads=[1, 2, 4],
            mlp_ratios=[2, 2, 2],
            decoder_hidden_size=32,
            num_labels=5,
        )
    )


def sam(layers: int) -> nn.Module:
    eyes = {
        **{"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2},
        **{"image_size": 32, "patch_size": 8, "output_channels": 16, "window_size": 2},
        **{"mlp_dim": 32, "num_pos_feats": 8, "global_attn_indexes": [1]},
    }
    prompts = {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.SamModel(
        transformers.SamConfig(
            vision_config=eyes,
            prompt_encoder_config={**prompts, "image_embedding_size": 4},
            mask_decoder_config={**decoder, "iou_head_hidden_dim": 16},
        )
    )


def detr(layers: int) -> nn.Module:
    backbone = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        layer_type="basic",
        out_features=["stage3"],
    )
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            backbone_config=backbone,
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            d_model=64,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            num_queries=12,
            num_labels=7,
        )
    )


def yolos(layers: int) -> nn.Module:
    return transformers.YolosForObjectDetection(
        transformers.YolosConfig(
            **ENCODER,
            image_size=[32, 48],
            patch_size=8,
            num_hidden_layers=layers,
            num_detection_tokens=10,
            use_mid_position_embeddings=True,
            num_labels=7,
        )
    )


class TwoConvolutions(nn.Sequential):
    """What every level of a U-Net is made of."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__(
            nn.Conv2d(into, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """A U-Net for segmentation that takes images of any size (Ronneberger et al., 2015)."""

    def __init__(self, channels: tuple[int, ...] = (8, 16, 32, 64), classes: int = 4) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(channels))
        self.first = TwoConvolutions(3, channels[0])
        self.down = nn.ModuleList(TwoConvolutions(a, b) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in reversed(pairs))
        self.join = nn.ModuleList(TwoConvolutions(2 * a, a) for a, _ in reversed(pairs))
        self.last = nn.Conv2d(channels[0], classes, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        levels = [self.first(pixel_values)]
        for level in self.down:
            levels.append(level(nn.functional.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            skipped = levels.pop()
            x = join(torch.cat([skipped, self.resized(up(x), skipped)], dim=1))
        return self.last(x)

    def resized(self, x: Tensor, skipped: Tensor) -> Tensor:
        return nn.functional.interpolate(x, size=skipped.shape[2:], mode="nearest")


class UNetOfMultiples(UNet):
    """A U-Net for images that every level halves without a rest."""

    def resized(self, x: Tensor, skipped: Tensor) -> Tensor:
        return x


LAYERS = 4
MIDDLE: Sizes = {"batch": 2, "height": 64, "width": 48}


def of_layers(
    name: str,
    build: Callable[[int], nn.Module],
    inputs: Callable[[Sizes], dict[str, Any]],
    dynamic_shapes: Mapping[str, Any],
    example: Sizes,
    notes: str = "",
) -> Entry:
    """An entry for a model that is built with a number of repeated layers."""
    return Entry(
        name=name,
        family="vision",
        make=seeded(lambda: build(LAYERS)),
        inputs=inputs,
        dynamic_shapes=dynamic_shapes,
        example=example,
        blocks=LAYERS,
        deeper=seeded(lambda: build(2 * LAYERS)),
        notes=notes,
    )


def fixed_size(name: str, build: Callable[[int], nn.Module], notes: str = "") -> Entry:
    """An entry for a model that takes images of one size, as vision transformers do."""
    return of_layers(name, build, square, IMAGES, {"batch": 2}, notes)


def any_sized(name: str, build: Callable[[int], nn.Module], notes: str = "") -> Entry:
    """An entry for a model that takes images of any height and width."""
    return of_layers(name, build, any_size, IMAGES_OF_ANY_SIZE, MIDDLE, notes)


def multiples(name: str, build: Callable[[], nn.Module], factor: int, notes: str) -> Entry:
    """An entry for a model whose images have to be multiples of a number of pixels."""
    return Entry(
        name=name,
        family="vision",
        make=seeded(build),
        inputs=lambda sizes: {
            "pixel_values": pixels(
                sizes["batch"], factor * sizes["rows"], factor * sizes["columns"]
            )
        },
        dynamic_shapes={"pixel_values": {0: BATCH, 2: factor * ROWS, 3: factor * COLUMNS}},
        example={"batch": 2, "rows": 4, "columns": 3},
        notes=f"{notes}; sizes are multiples of {factor}",
    )


def detection_inputs(sizes: Sizes) -> dict[str, Any]:
    """Images of different sizes, padded to the largest one."""
    images = any_size(sizes)
    mask = torch.ones(images["pixel_values"].shape[0], *images["pixel_values"].shape[2:])
    mask[0, :, -8:] = 0
    return {**images, "pixel_mask": mask.long()}


ENTRIES: tuple[Entry, ...] = (
    fixed_size("vit", vit),
    fixed_size("deit", deit, "a class token and a distillation token"),
    fixed_size("beit", beit, "relative position biases of every layer's own"),
    any_sized("dinov2", dinov2, "position embeddings are interpolated to the image's size"),
    any_sized("dinov3", dinov3, "rotary positions in two dimensions, register tokens"),
    fixed_size("swin", swin, "windows, every other one shifted"),
    fixed_size("swin-stages", swin_stages, "three stages, the last of which is one window"),
    fixed_size("swinv2", swinv2, "cosine attention, continuous position biases"),
    any_sized("convnext", convnext),
    any_sized("convnextv2", convnextv2, "global response normalisation"),
    any_sized("resnet", resnet, "bottleneck layers"),
    any_sized("regnet", regnet, "grouped convolutions, squeeze and excitation"),
    any_sized("efficientnet", efficientnet, "depthwise convolutions, squeeze and excitation"),
    Entry(
        name="mobilenet-v2",
        family="vision",
        make=seeded(mobilenet_v2),
        inputs=any_size,
        dynamic_shapes={
            "pixel_values": {
                0: BATCH,
                2: Dim("height", sizes=[63, 64], ranges=[]),
                3: Dim("width", sizes=[48], ranges=[]),
            }
        },
        example=MIDDLE,
        notes="padding depends on every bit of an image's size, as in TensorFlow, so that each is "
        "compiled by itself",
    ),
    Entry(
        name="mobilevit",
        family="vision",
        make=seeded(mobilevit),
        inputs=lambda sizes: {"pixel_values": pixels(sizes["batch"], 64, 64)},
        dynamic_shapes=IMAGES,
        example={"batch": 2},
        notes="convolutions and transformer layers in turns",
    ),
    any_sized("segformer", segformer, "segmentation with a transformer"),
    of_layers(
        "sam",
        sam,
        lambda sizes: {**square(sizes), "input_points": torch.rand(sizes["batch"], 1, 2, 2) * 32},
        {**IMAGES, "input_points": {0: BATCH}},
        {"batch": 2},
        "segmentation of what points show",
    ),
    of_layers(
        "detr",
        detr,
        detection_inputs,
        {**IMAGES_OF_ANY_SIZE, "pixel_mask": {0: BATCH, 1: HEIGHT, 2: WIDTH}},
        MIDDLE,
        "detection: convolutions, encoder, decoder; images are padded",
    ),
    any_sized("yolos", yolos, "detection tokens beside the patches"),
    Entry(
        name="unet",
        family="vision",
        make=seeded(UNet),
        inputs=any_size,
        dynamic_shapes=IMAGES_OF_ANY_SIZE,
        example=MIDDLE,
        notes="segmentation; plain torch",
    ),
    multiples("unet-multiples", UNetOfMultiples, 8, "levels are joined as they are; plain torch"),
    multiples("swin-any-size", swin_any_size, 16, "windows, every other one shifted"),
)
