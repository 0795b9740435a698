"""Convolutions run on packed weights, with what follows them folded in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.integration.packed.models import ALWAYS, Shapes, same

pytestmark = pytest.mark.usefixtures("kept_pieces")


def convolutions() -> list[Any]:
    image, wide = (2, 8, 12, 12), (2, 16, 12, 12)
    normed = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    layers: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "plain": (nn.Conv2d(8, 16, 3, padding=1), image),
        "1x1": (nn.Conv2d(8, 16, 1), image),
        "one channel": (nn.Conv2d(1, 8, 3), (2, 1, 12, 12)),
        "depthwise": (nn.Conv2d(16, 16, 3, groups=16, bias=False), wide),
        "groups": (nn.Conv2d(16, 32, 3, groups=4, stride=2), wide),
        "dilated": (nn.Conv2d(8, 16, 3, dilation=2), image),
        "transposed": (nn.ConvTranspose2d(8, 16, 3, stride=2), image),
        "3d": (nn.Conv3d(4, 8, 3), (2, 4, 6, 6, 6)),
        "1d": (nn.Conv1d(8, 16, 3), (2, 8, 20)),
        "batch norm": (normed, image),
    }
    slow = {("groups", "image"), ("dilated", "image"), ("one channel", "image")}
    return [
        pytest.param(
            layer,
            shape,
            ranges,
            id=f"{name}-{ranges}",
            marks=[pytest.mark.slow] if ranges == "static" or (name, ranges) in slow else [],
        )
        for name, (layer, shape) in layers.items()
        for ranges in ("static", "batch", "image")
        if ranges != "image" or len(shape) == 4
    ]


@pytest.mark.thorough
@pytest.mark.parametrize(("layer", "shape", "ranges"), convolutions())
def test_convolutions(layer: nn.Module, shape: tuple[int, ...], ranges: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).relu()

    torch.manual_seed(0)
    model = Model().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    dims: Shapes = {}
    if ranges == "batch":
        dims = {"x": {0: Dim("batch", min=1, max=8)}}
    if ranges == "image":
        dims = {"x": {2: Dim("high", min=5, max=40), 3: Dim("wide", min=5, max=40)}}
    program = hotstart.compile(model, (torch.randn(shape),), dynamic_shapes=dims, options=ALWAYS)
    same(model, program, torch.randn(shape))
    if ranges == "batch":
        for batch in (1, 3, 8):
            same(model, program, torch.randn(batch, *shape[1:]))
    if ranges == "image":
        for high, wide in ((5, 5), (7, 40), (40, 9)):
            same(model, program, torch.randn(*shape[:2], high, wide))
    same(model, program, torch.randn(shape).to(memory_format=torch.preserve_format))


def test_statistics_that_batches_change_are_folded_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)).eval()
    x = torch.randn(2, 3, 9, 9)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    same(model, program, x)
    model.train()
    with torch.no_grad():
        model(x * 3 + 1)
    model.eval()
    same(model, program, x)


@pytest.mark.thorough
def test_convolutions_scaled_by_different_numbers() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) * 2.0 + self.other(x) * 5.0

    torch.manual_seed(0)
    model = Scaled().eval()
    x = torch.randn(1, 3, 9, 9)
    same(model, hotstart.compile(model, (x,), options=ALWAYS), x)


@pytest.mark.thorough
def test_numbers_are_folded_one_after_the_other() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * 2.0 - 3.0

    torch.manual_seed(0)
    model = Scaled().eval()
    x = torch.randn(1, 3, 9, 9)
    program = hotstart.compile(model, (x,))
    same(model, program, x)
    assert program.artifact.units[0].preparations


class Enlarged(nn.Module):
    """An image that is halved and enlarged, and beside itself before another convolution."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2, groups=groups)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.up(self.down(x).relu()), x], 1))


@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_after_a_transposed_one_are_packed(groups: int, capfd: Any) -> None:
    torch.manual_seed(0)
    model = Enlarged(groups).eval()
    half = Dim("half", max=20)
    dims: Shapes = {"x": {2: 2 * half}}
    x = torch.randn(2, 8, 12, 12)
    program = hotstart.compile(model, (x,), dynamic_shapes=dims, options=ALWAYS)
    assert program.report.not_packed == ()
    for high in (2, 12, 40):
        same(model, program, torch.randn(2, 8, high, 12))
    assert "Traceback" not in capfd.readouterr().err
