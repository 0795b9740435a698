"""A module with the same tensors and another setting is not what was compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Options

SERIES = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(15).reshape(3, 5) % 8

MODULES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "Conv1d": (lambda: nn.Conv1d(4, 4, 3, padding=1), SERIES),
    "Conv2d": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), IMAGE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 4, 3, stride=2), IMAGE),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), IMAGE),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, padding=1), IMAGE),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((2, 2)), IMAGE),
    "Upsample": (lambda: nn.Upsample(scale_factor=2.0, mode="bilinear"), IMAGE),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(8, 4, mode="sum"), IDS),
    "LayerNorm": (lambda: nn.LayerNorm(8), IMAGE),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), IMAGE),
    "RMSNorm": (lambda: nn.RMSNorm(8, eps=1e-5), IMAGE),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "Flatten": (lambda: nn.Flatten(), IMAGE),
    "Softmax": (lambda: nn.Softmax(1), IMAGE),
    "GELU": (lambda: nn.GELU(), IMAGE),
    "LeakyReLU": (lambda: nn.LeakyReLU(), IMAGE),
    "ReflectionPad2d": (lambda: nn.ReflectionPad2d(1), IMAGE),
    "GRU": (lambda: nn.GRU(8, 8, batch_first=True), SERIES),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), SERIES,
    ),
}  # fmt: skip

WORDS = ("tanh", "none", "sum", "max", "zeros", "circular", "nearest")


def others(value: Any) -> list[Any]:
    """Values that could be there in place of one."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value * 2, max(value - 1, 0)]
        case float():
            return [value * 2 + 0.25]
        case str():
            return [word for word in WORDS if word != value]
        case tuple():
            return [tuple(others(item)[0] for item in value)]
    return []


def changed(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a model, each with another value of one attribute of one module."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            given = not name.startswith("_") and name != "training"
            for other in others(value) if given else ():
                copied = copy.deepcopy(model)
                setattr(copied.get_submodule(path), name, other)
                yield name, copied


def result(model: nn.Module, x: Tensor) -> Tensor | None:
    """What a model computes; None if it cannot."""
    try:
        found = model(x)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError):
        return None
    found = found[0] if isinstance(found, tuple) else found
    assert isinstance(found, Tensor)
    return found


def differ(left: Tensor, right: Tensor) -> bool:
    return left.shape != right.shape or not torch.allclose(left, right, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "x"), MODULES.values(), ids=MODULES)
def test_a_setting_that_changes_results_is_compared_at_load(
    make: Callable[[], nn.Module], x: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, file = make().eval(), tmp_path / "model.hot"
    with torch.no_grad():
        hotstart.compile(model, (x,), options=Options(compiler="op_by_op")).save(file, check=False)
        expected = result(model, x)
        assert expected is not None
        matter = 0
        for name, other in changed(model):
            found = result(other, x)
            if found is not None and differ(found, expected):
                matter += 1
                with pytest.raises(hotstart.ModelMismatch, match=name):
                    hotstart.load(file, other)
    assert matter
