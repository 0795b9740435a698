"""Models that branch on what tensors hold: global tokens, masks without padding, early exits."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import padding_mask, seeded, tokens

FAMILY = "branches on contents"
BATCH = Dim("batch", min=1, max=4)
SEQ = Dim("seq", min=2, max=64)
VOCABULARY = 128
LAYERS = 2

WINDOW = 8
WINDOWS = Dim("windows", min=2, max=12)
DOCUMENTS = {
    argument: {0: BATCH, 1: WINDOW * WINDOWS}
    for argument in ("input_ids", "attention_mask", "global_attention_mask")
}


class Attention(nn.Module):
    """Self-attention with heads, for tokens that a mask leaves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(found.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    """A layer of an encoder, with norms before each part."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.first_norm = nn.LayerNorm(width)
        self.second_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.first_norm(x), mask)
        return x + self.mlp(self.second_norm(x))


class DropsFullMask(nn.Module):
    """An encoder that attends without a mask where no token is padding, which is faster."""

    def __init__(self, layers: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask: Tensor | None = attention_mask.bool()
        if mask.all():
            mask = None
        else:
            mask = mask[:, None, None, :]
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class ExitsEarly(nn.Module):
    """A classifier after every layer; a sure one ends the call (Teerapittayanon et al., 2016)."""

    def __init__(
        self, layers: int, width: int = 32, classes: int = 3, threshold: float = 0.7
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.project = nn.Linear(16, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.classifiers = nn.ModuleList(nn.Linear(width, classes) for _ in range(layers))

    def forward(self, features: Tensor) -> tuple[Tensor, int]:
        x = self.project(features)
        ran = 0
        for layer, classifier in zip(self.layers, self.classifiers, strict=True):
            x = layer(x)
            ran += 1
            logits = classifier(x.mean(1))
            probs = logits.softmax(-1)
            if probs.max(-1).values.min() > self.threshold:
                break
        return logits, ran


def longformer(layers: int) -> nn.Module:
    return transformers.LongformerModel(
        transformers.LongformerConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=64,
            attention_window=[WINDOW] * layers,
            max_position_embeddings=WINDOW * WINDOWS.max + 2,
            pad_token_id=1,
        )
    )


def masked(sizes: Sizes, length: int) -> dict[str, Any]:
    """Tokens, and a mask that leaves out the end of the first row."""
    return {
        "input_ids": tokens(sizes["batch"], length, VOCABULARY),
        "attention_mask": padding_mask(sizes["batch"], length),
    }


def documents(sizes: Sizes) -> dict[str, Any]:
    """Padded documents, none of whose tokens attends to all others."""
    given = masked(sizes, WINDOW * sizes["windows"])
    return {**given, "global_attention_mask": torch.zeros_like(given["attention_mask"])}


def documents_with_global_tokens(sizes: Sizes) -> dict[str, Any]:
    """Padded documents whose first token attends to all others, as a classifier's does."""
    given = documents(sizes)
    given["global_attention_mask"][:, 0] = 1
    return given


def full(sizes: Sizes) -> dict[str, Any]:
    given = masked(sizes, sizes["seq"])
    return {**given, "attention_mask": torch.ones_like(given["attention_mask"])}


def of_documents(name: str, inputs: Any, notes: str) -> Entry:
    return Entry(
        name=name,
        family=FAMILY,
        make=seeded(lambda: longformer(LAYERS)),
        inputs=inputs,
        dynamic_shapes=DOCUMENTS,
        example={"batch": 2, "windows": 4},
        blocks=LAYERS,
        deeper=seeded(lambda: longformer(2 * LAYERS)),
        notes=notes,
    )


def drops_full_mask(name: str, inputs: Any, notes: str) -> Entry:
    return Entry(
        name=name,
        family=FAMILY,
        make=seeded(lambda: DropsFullMask(LAYERS)),
        inputs=inputs,
        dynamic_shapes={
            argument: {0: BATCH, 1: SEQ} for argument in ("input_ids", "attention_mask")
        },
        example={"batch": 2, "seq": 24},
        blocks=LAYERS,
        deeper=seeded(lambda: DropsFullMask(2 * LAYERS)),
        notes=notes,
    )


def more_or_less_clear(sizes: Sizes) -> dict[str, Any]:
    """Features that are the clearer the larger they are, so that sizes leave after other layers."""
    batch, length = sizes["batch"], sizes["seq"]
    clear = (0.5, 4.0, 8.0, 16.0)[(batch + length) % 4]
    return {"features": clear * (torch.randn(batch, 1, 16) + 0.3 * torch.randn(batch, length, 16))}


ENTRIES: tuple[Entry, ...] = (
    of_documents(
        "longformer",
        documents_with_global_tokens,
        "attention in windows; asks whether any token attends to all",
    ),
    of_documents("longformer-local", documents, "the same, where no token attends to all"),
    drops_full_mask("mask-shortcut", full, "a mask that is all ones is dropped; plain torch"),
    drops_full_mask(
        "mask-shortcut-padded", lambda sizes: masked(sizes, sizes["seq"]), "the same with padding"
    ),
    Entry(
        name="early-exit",
        family=FAMILY,
        make=seeded(lambda: ExitsEarly(4)),
        inputs=more_or_less_clear,
        dynamic_shapes={"features": {0: BATCH, 1: SEQ}},
        example={"batch": 2, "seq": 24},
        notes="a classifier after each of 4 layers; returns once one is sure; plain torch",
    ),
)
