"""Models whose sizes depend on data: detections above a threshold, spans, computed paddings."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import padding_mask, pixels, seeded, tokens

FAMILY = "sizes that depend on data"
BATCH = Dim("batch", min=1, max=4)
VOCABULARY = 128


class Detections(nn.Module):
    """A detector with what follows it: the boxes of a score above a threshold, best first."""

    def __init__(self, model: nn.Module, threshold: float) -> None:
        super().__init__()
        self.model = model
        self.threshold = threshold

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        found = self.model(pixel_values)
        scores, labels = found.logits.softmax(-1)[..., :-1].max(-1)
        image, place = torch.where(scores > self.threshold)
        kept = scores[image, place].argsort(descending=True)
        image, place = image[kept], place[kept]
        centre, size = found.pred_boxes[image, place].split(2, dim=-1)
        return {
            "image": image,
            "scores": scores[image, place],
            "labels": labels[image, place],
            "boxes": torch.cat([centre - size / 2, centre + size / 2], dim=-1),
        }


class Spans(nn.Module):
    """Extracts the answer to a question: the tokens from the best start to the best end."""

    def __init__(self) -> None:
        super().__init__()
        self.model = transformers.BertForQuestionAnswering(
            transformers.BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=64,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=128,
            )
        )

    def forward(self, input_ids: Tensor) -> tuple[Tensor, int, int]:
        found = self.model(input_ids)
        start = int(found.start_logits[0].argmax())
        end = int(found.end_logits[0].argmax())
        return input_ids[0, min(start, end) : max(start, end) + 1], start, end


class Mimi(nn.Module):
    """A codec whose paddings are computed of buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = transformers.MimiModel(
            transformers.MimiConfig(
                hidden_size=32,
                num_filters=4,
                codebook_size=64,
                codebook_dim=16,
                vector_quantization_hidden_dimension=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=16,
                intermediate_size=32,
                upsampling_ratios=[4, 2],
                num_quantizers=4,
                num_semantic_quantizers=1,
                sliding_window=16,
                upsample_groups=32,
                kernel_size=3,
                last_kernel_size=3,
            )
        )


class MimiDecoder(Mimi):
    """Codes to a waveform."""

    def forward(self, audio_codes: Tensor) -> Tensor:
        return self.codec.decode(audio_codes).audio_values


class MimiBothWays(Mimi):
    """A waveform to codes, and back."""

    def forward(self, input_values: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.codec.encode(input_values).audio_codes
        return codes, self.codec.decode(codes).audio_values


def yolos() -> nn.Module:
    return transformers.YolosForObjectDetection(
        transformers.YolosConfig(
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=[32, 48],
            patch_size=8,
            num_detection_tokens=10,
            num_labels=5,
        )
    )


def big_bird() -> nn.Module:
    return transformers.BigBirdModel(
        transformers.BigBirdConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=256,
            block_size=8,
            num_random_blocks=2,
            attention_type="block_sparse",
        )
    )


def images(sizes: Sizes) -> dict[str, Any]:
    return {"pixel_values": pixels(sizes["batch"], 32, 48)}


def codes(sizes: Sizes) -> dict[str, Any]:
    return {"audio_codes": torch.randint(0, 64, (1, 4, sizes["frames"]))}


def detections(name: str, threshold: float, notes: str) -> Entry:
    return Entry(
        name=name,
        family=FAMILY,
        make=seeded(lambda: Detections(yolos(), threshold)),
        inputs=images,
        dynamic_shapes={"pixel_values": {0: BATCH}},
        example={"batch": 2},
        notes=notes,
    )


ENTRIES: tuple[Entry, ...] = (
    detections("yolos-detections", 0.1725, "boxes above a threshold, best first"),
    detections("yolos-no-detections", 0.99, "the same, where there are none"),
    Entry(
        name="bert-spans",
        family=FAMILY,
        make=seeded(Spans),
        inputs=lambda sizes: {"input_ids": tokens(1, sizes["seq"], VOCABULARY)},
        dynamic_shapes={"input_ids": {1: Dim("seq", min=2, max=64)}},
        example={"seq": 24},
        notes="the tokens between the best start and the best end",
    ),
    Entry(
        name="mimi-decoder",
        family=FAMILY,
        make=seeded(MimiDecoder),
        inputs=codes,
        dynamic_shapes={"audio_codes": {2: Dim("frames", min=2, max=32)}},
        example={"frames": 7},
        notes="codes to a waveform; paddings are computed of buffers",
    ),
    Entry(
        name="mimi",
        family=FAMILY,
        make=seeded(MimiBothWays),
        inputs=lambda sizes: {"input_values": torch.randn(1, 1, sizes["samples"])},
        dynamic_shapes={"input_values": {2: Dim("samples", sizes=[160, 203], ranges=[])}},
        example={"samples": 160},
        notes="a waveform to codes, and back",
    ),
    Entry(
        name="big-bird",
        family=FAMILY,
        make=seeded(big_bird),
        inputs=lambda sizes: {
            "input_ids": tokens(sizes["batch"], 128, VOCABULARY),
            "attention_mask": padding_mask(sizes["batch"], 128),
        },
        dynamic_shapes={"input_ids": {0: BATCH}, "attention_mask": {0: BATCH}},
        example={"batch": 2},
        notes="block-sparse attention, planned with numpy in forward",
    ),
)
