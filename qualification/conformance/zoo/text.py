"""Entries of models of transformers that read tokens: small, seeded, structurally complete."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes

VOCABULARY = 128
LAYERS = 4
BATCH = Dim("batch", min=1, max=4)
SEQ = Dim("seq", min=1, max=64)
"""One range, so that windows and chunks begin to matter somewhere inside it."""
RANGES = Dim("seq", min=1, max=64, ranges=[(1, 16), (17, 64)])
EXAMPLE = {"batch": 2, "seq": 24}

Inputs = Callable[[Sizes], dict[str, Any]]
Settings = Mapping[str, Any]
"""Settings of a configuration; a function stands for what depends on the number of layers."""

SMALL: Settings = {
    "num_hidden_layers": lambda layers: layers,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED: Settings = {**SMALL, "num_key_value_heads": 2, "use_cache": False}
"""Fewer heads of keys and values than of queries, as most decoders have."""


def entry(
    name: str,
    family: str,
    model: str,
    settings: Settings,
    *,
    config: str = "",
    inputs: Inputs,
    dynamic_shapes: Mapping[str, Any],
    example: Sizes = EXAMPLE,
    layers: int = LAYERS,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
    **more: Any,
) -> Entry:
    """An entry for a class of transformers; the deeper model has twice the layers.

    Args:
        name: of the entry.
        family: of the entry.
        model: the class, such as `LlamaForCausalLM`.
        settings: of its configuration.
        config: the configuration's class. Default: the one that the model's class names.
        inputs: keyword arguments of a call.
        dynamic_shapes: as `Entry` takes it.
        example: as `Entry` takes it.
        layers: how many the model has.
        wrap: makes of the model what is called.
        more: further attributes of the entry.
    """

    def of_depth(depth: int) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            chosen = {k: v(depth) if callable(v) else v for k, v in settings.items()}
            cls = getattr(transformers, model)
            made = getattr(transformers, config) if config else cls.config_class
            return seeded(lambda: wrap(cls(made(**chosen))))

        return make

    return Entry(
        name=name,
        family=family,
        make=of_depth(layers),
        inputs=inputs,
        dynamic_shapes=dynamic_shapes,
        example=example,
        blocks=layers,
        deeper=of_depth(2 * layers),
        **more,
    )


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A model in eval mode whose random weights are the same in every process.

    Weights as transformers initialises them are so small that every token would be answered in the
    same way whatever it attends to. These let every layer, every head and every bias show in the
    result.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = build().eval()
        for module in model.modules():
            convolution = isinstance(module, nn.modules.conv._ConvNd)
            for weight in module.parameters(recurse=False):
                if weight.ndim < 2:
                    weight.add_(torch.randn_like(weight), alpha=0.1)
                else:
                    terms = weight[0].numel() if convolution else weight.shape[-1]
                    weight.normal_(std=1 / math.sqrt(terms))
    return model


# --- what calls pass ------------------------------------------------------------------------------


def tokens(sizes: Sizes) -> dict[str, Any]:
    """Token ids, none of which is that of padding."""
    return {"input_ids": token_ids(sizes["batch"], sizes["seq"])}


def padded(sizes: Sizes) -> dict[str, Any]:
    """Token ids with a mask: every row but the first one ends in some padding."""
    batch, length = sizes["batch"], sizes["seq"]
    kept = torch.tensor([max(1, length - 3 * row) for row in range(batch)])
    mask = (torch.arange(length) < kept[:, None]).long()
    return {"input_ids": token_ids(batch, length) * mask, "attention_mask": mask}


def token_ids(batch: int, length: int) -> Tensor:
    """Random token ids above those with a meaning of their own."""
    return torch.randint(3, VOCABULARY, (batch, length))


def decoder(
    name: str,
    model: str,
    settings: Settings = GROUPED,
    *,
    family: str = "dense decoders",
    seq: Dim = SEQ,
    **more: Any,
) -> Entry:
    """A model that is called with nothing but tokens."""
    shapes = {"input_ids": {0: BATCH, 1: seq}}
    return entry(name, family, model, settings, inputs=tokens, dynamic_shapes=shapes, **more)


def encoder(
    name: str,
    model: str,
    settings: Settings = SMALL,
    *,
    family: str = "encoders",
    seq: Dim = SEQ,
    **more: Any,
) -> Entry:
    """A model that is called with tokens and the mask of their padding."""
    shapes = {argument: {0: BATCH, 1: seq} for argument in ("input_ids", "attention_mask")}
    return entry(name, family, model, settings, inputs=padded, dynamic_shapes=shapes, **more)
