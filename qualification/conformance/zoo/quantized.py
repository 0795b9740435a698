"""Models whose weights torchao quantised, and models with an adapter of peft."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch import nn

from qualification.conformance.zoo import decoders, encoders, vision
from qualification.conformance.zoo.entry import Entry
from qualification.conformance.zoo.text import SEQ

Change = Callable[[nn.Module], nn.Module]

ROUNDED = 0.2
"""Largest difference where activations are rounded to 255 steps, and a last bit may take another.

Eager itself gives BERT logits that differ by 0.075, 0.014 on average, once its embeddings are moved
by one part in ten million; `torch.compile` differs from eager by 0.083, 0.015 on average.
"""


def quantised(scheme: str, model: nn.Module) -> nn.Module:
    """The same model with quantised linear layers.

    Settings of Inductor's that torchao would make for the whole process stay as they are.
    """
    from torchao import quantization

    match scheme:
        case "int8":
            config = quantization.Int8WeightOnlyConfig(set_inductor_config=False)
        case "int8 dynamic":
            config = quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        case _:
            from torchao.prototype.quantization import int4

            config = int4.PrototypeInt4WeightOnlyConfig(group_size=32)
    quantization.quantize_(model, config)
    return model


def adapted(targets: Sequence[str], model: nn.Module) -> nn.Module:
    """The same model with an adapter that is not merged, and changes what it computes."""
    import peft

    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = peft.LoraConfig(r=4, target_modules=list(targets), init_lora_weights=False)
        made: nn.Module = peft.get_peft_model(model, settings)
        return made.eval()


def changed(name: str, base: Entry, change: Change, atol: float = 1e-4, notes: str = "") -> Entry:
    """An entry for what is made of the model of another, with one range of lengths."""

    def of(make: Callable[[], nn.Module] | None) -> Callable[[], nn.Module] | None:
        return None if make is None else lambda: change(make())

    shapes = {
        argument: {at: SEQ if dim.name == "seq" else dim for at, dim in dims.items()}
        for argument, dims in base.dynamic_shapes.items()
    }
    make = of(base.make)
    assert make is not None
    return dataclasses.replace(
        base,
        name=name,
        family="quantised and adapted",
        make=make,
        deeper=of(base.deeper),
        dynamic_shapes=shapes,
        atol=atol,
        notes=notes,
    )


BASES = {
    entry.name: entry
    for entry in (*encoders.ENTRIES, *decoders.ENTRIES, *vision.ENTRIES)
    if entry.name in ("bert", "llama", "vit")
}
TARGETS = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj"), "vit": ("q_proj", "v_proj")}

ENTRIES: tuple[Entry, ...] = (
    *(
        changed(
            f"{name}-int8",
            base,
            functools.partial(quantised, "int8"),
            notes="weights of a byte each",
        )
        for name, base in BASES.items()
    ),
    *(
        changed(
            f"{name}-int8-dynamic",
            base,
            functools.partial(quantised, "int8 dynamic"),
            ROUNDED,
            "weights and activations of a byte each",
        )
        for name, base in BASES.items()
    ),
    changed(
        "bert-int4",
        BASES["bert"],
        functools.partial(quantised, "int4"),
        notes="weights of half a byte each, packed",
    ),
    *(
        changed(
            f"{name}-lora",
            base,
            functools.partial(adapted, TARGETS[name]),
            notes="an adapter that is not merged",
        )
        for name, base in BASES.items()
    ),
)
