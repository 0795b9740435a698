"""Models with random weights that tests build, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from hotstart import Dim

SMALL: dict[str, Any] = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER = {**SMALL, "num_key_value_heads": 2, "use_cache": False}


@dataclass(frozen=True)
class Case:
    """A model, and how to call it.

    Attributes:
        make: builds it.
        inputs: arguments for a batch and a sequence length.
        axes: the dynamic dimensions of every argument.
        attention: whether it has attention to split at.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], dict[str, Tensor]]
    axes: Mapping[int, Dim]
    attention: bool = True

    @property
    def lengths(self) -> Sequence[int]:
        """Sequence lengths to try: 1, 2, ends of ranges and some in between."""
        return (1, 2, 7, 16, 17, 40) if len(self.axes) > 1 else (1,)


BATCH = {0: Dim("batch", max=4, sizes=[1])}
TOKENS = {**BATCH, 1: Dim("seq", max=40, ranges=[(1, 16), (17, 40)], sizes=[1])}


def tokens(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 128, (batch, length))}


def padded(batch: int, length: int) -> dict[str, Tensor]:
    mask = torch.ones(batch, length, dtype=torch.long)
    if length > 2:
        mask[0, -2:] = 0
    return {**tokens(batch, length), "attention_mask": mask}


def pixels(batch: int, length: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(batch, 3, 32, 32)}


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(x + self.second_norm(self.second(y)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 7, stride=2, padding=3)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(16) for _ in range(4)))
        self.head = nn.Linear(16, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.blocks(self.pool(self.stem(pixel_values)))
        return self.head(x.mean((2, 3)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))


CASES: dict[str, Case] = {
    "mlp": Case(
        mlp,
        lambda batch, length: {"input": torch.randn(batch, 16)},
        {0: Dim("batch", max=4)},
        attention=False,
    ),
    "resnet": Case(ResNet, pixels, BATCH, attention=False),
    "vit": Case(
        lambda: transformers.ViTModel(
            transformers.ViTConfig(
                num_hidden_layers=3,
                hidden_size=64,
                num_attention_heads=4,
                intermediate_size=128,
                image_size=32,
                patch_size=8,
            )
        ),
        pixels,
        BATCH,
    ),
    "bert": Case(lambda: transformers.BertModel(transformers.BertConfig(**SMALL)), padded, TOKENS),
    "gpt2": Case(
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_layer=3,
                n_embd=64,
                n_head=4,
                vocab_size=128,
                use_cache=False,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        tokens,
        TOKENS,
    ),
    "llama": Case(
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER)), tokens, TOKENS
    ),
    "qwen3": Case(
        lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**DECODER, head_dim=16)),
        tokens,
        TOKENS,
    ),
    "gemma3": Case(
        lambda: transformers.Gemma3ForCausalLM(
            transformers.Gemma3TextConfig(
                **DECODER,
                head_dim=16,
                sliding_window=8,
                layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            )
        ),
        tokens,
        TOKENS,
    ),
}
