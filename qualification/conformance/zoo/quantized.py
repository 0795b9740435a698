"""Models whose weights torchao quantised, and models with an adapter of peft."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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


def adapted(targets: Sequence[str], model: nn.Module, **more: Any) -> nn.Module:
    """The same model with an adapter that is not merged, and changes what it computes."""
    import peft

    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = list(targets)
        settings = peft.LoraConfig(r=4, target_modules=names, init_lora_weights=False, **more)
        made: nn.Module = peft.get_peft_model(model, settings)
        return made.eval()


def switched(targets: Sequence[str], model: nn.Module) -> nn.Module:
    """The same model with two adapters, the second of which is active."""
    import peft

    made: Any = adapted(targets, model)
    settings = peft.LoraConfig(r=8, target_modules=list(targets), init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made.add_adapter("second", settings)
    made.set_adapter("second")
    return made.eval()  # type: ignore[no-any-return]


class ScaledLinear(nn.Module):
    """A linear layer with an adapter whose scale is set for every call."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.scale = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x)) * self.scale


class ScaledByCall(nn.Module):
    """A model with adapters of its own make, whose scale is an argument."""

    def __init__(self, targets: Sequence[str], model: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for module in list(model.modules()):
                for name in targets:
                    if isinstance(base := getattr(module, name, None), nn.Linear):
                        setattr(module, name, ScaledLinear(base))
        self.model = model
        self.adapters = [m for m in model.modules() if isinstance(m, ScaledLinear)]

    def forward(self, scale: Tensor, **inputs: Tensor) -> Any:
        for adapter in self.adapters:
            adapter.scale = scale
        return self.model(**inputs)


def with_scale(base: Entry) -> Entry:
    """An entry whose calls pass a scale beside what another's pass."""
    inputs = base.inputs
    return dataclasses.replace(
        base,
        inputs=lambda sizes: {**inputs(sizes), "scale": torch.tensor(0.5)},
        dynamic_shapes={**base.dynamic_shapes, "scale": None},
    )


def changed(name: str, base: Entry, change: Change, atol: float = 1e-4, notes: str = "") -> Entry:
    """An entry for what is made of the model of another, with one range of lengths."""

    def of(make: Callable[[], nn.Module] | None) -> Callable[[], nn.Module] | None:
        return None if make is None else lambda: change(make())

    shapes = {
        argument: dims and {at: SEQ if dim.name == "seq" else dim for at, dim in dims.items()}
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
            "weights and activations of a byte each: 1e-7 moves eager's own result as far",
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
    changed(
        "bert-lora-switched",
        BASES["bert"],
        functools.partial(switched, TARGETS["bert"]),
        notes="two adapters, of which the second is active",
    ),
    changed(
        "bert-dora",
        BASES["bert"],
        lambda model: adapted(TARGETS["bert"], model, use_dora=True),
        notes="an adapter of magnitude and direction",
    ),
    changed(
        "llama-lora-int8",
        BASES["llama"],
        lambda model: adapted(TARGETS["llama"], quantised("int8", model)),
        notes="an adapter on weights of a byte each",
    ),
    changed(
        "llama-lora-scaled",
        with_scale(BASES["llama"]),
        functools.partial(ScaledByCall, TARGETS["llama"]),
        notes="adapters whose scale is an argument; they are of plain torch",
    ),
)
