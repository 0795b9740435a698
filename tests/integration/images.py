"""Networks that hand on images from piece to piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim

functional = nn.functional


class Residual(nn.Module):
    """Convolutions with normalisation, an activation and a residual."""

    def __init__(self, width: int, inplace: bool = False) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, 16, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.conv = nn.Conv2d(16, width, 3, padding=1)
        self.act = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(self.act(self.norm(self.narrow(x)))) + x)


class Written(Residual):
    """Its activations write to their input."""

    def __init__(self, width: int) -> None:
        super().__init__(width, inplace=True)


class Excited(nn.Module):
    """Depthwise, with channels that are scaled by what is pooled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.scale = nn.Conv2d(width, width, 1)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.hardswish(self.depthwise(x))
        scale = functional.hardsigmoid(self.scale(functional.adaptive_avg_pool2d(y, 1)))
        return x + self.project(y * scale)


class Normed(nn.Module):
    """Channels are normalised last, and mixed by linears."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.down(functional.gelu(self.up(y))).permute(0, 3, 1, 2)


class Grouped(nn.Module):
    """Groups of channels are normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(functional.silu(self.norm(x)))


class Shuffled(nn.Module):
    """Channels are shuffled by views that only some layouts allow."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1, groups=4)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, high, wide = x.shape
        flat = self.mix(x.view(batch, width, high * wide).sin().view(x.shape))
        y = self.conv(flat).view(batch, 4, width // 4, high, wide).transpose(1, 2)
        return x + y.reshape(batch, width, high, wide)


class Strided(nn.Module):
    """Reads its input by address."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = x.as_strided((x.shape[0], 5), (x.shape[1] * x.shape[2] * x.shape[3], 1))
        return self.conv(x) + first.sum()


class Network(nn.Module):
    """A stem, three equal blocks, and a head."""

    def __init__(self, block: Callable[[int], nn.Module], width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(block(width) for _ in range(3))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Features(Network):
    """Returns the image of every block, one of which is written to later."""

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        x = self.stem(x)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found


class Volumes(nn.Module):
    """Blocks of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv3d(8, 8, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm3d(8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.blocks, self.norms, strict=True):
            x = norm(conv(x)).relu() + x
        return x


class Decoder(nn.Module):
    """Goes down and up again, with what it met on the way."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(2))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, 2) for _ in range(2))
        self.mix = nn.ModuleList(Residual(width) for _ in range(2))
        self.join = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        met = []
        for down, mix in zip(self.down, self.mix, strict=True):
            met.append(x)
            x = mix(down(x).relu())
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), met.pop()], 1)).relu()
        return x


class Headed(Network):
    """Ends in a function of the last image, in a piece of its own."""

    def __init__(self, ends: Callable[[Tensor], Any]) -> None:
        super().__init__(Residual)
        self.ends = ends

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.ends(x)


def by_stride(x: Tensor) -> Tensor:
    return x * 2 if x.stride(1) == 1 else x * 3


def by_format(x: Tensor) -> Tensor:
    return x * 2 if x.is_contiguous(memory_format=torch.channels_last) else x * 3


def by_address(x: Tensor) -> Tensor:
    return x.sin().as_strided((x.shape[0], 5), (x.stride(0), 1))


def by_copy(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.flatten(1)
    flat[:, 0] = 5.0
    return x * 2, flat * 2


@torch.library.custom_op(
    "tests_convolutions::written", mutates_args=("x",), tags=[torch.Tag.flexible_layout]
)
def written(x: Tensor) -> Tensor:
    x.add_(10.0)
    return x.sum((2, 3))


@written.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:2])


def by_operator(x: Tensor) -> tuple[Tensor, ...]:
    sums = torch.ops.tests_convolutions.written(x)
    return x, sums, x * 2


LIBRARY = torch.library.Library("tests_convolutions_by_schema", "DEF")
LIBRARY.define("written(Tensor(a!) x) -> Tensor", tags=[torch.Tag.flexible_layout])
LIBRARY.impl("written", lambda x: x.add_(10.0).sum((2, 3)), "CPU")
LIBRARY.impl("written", lambda x: x.new_empty(x.shape[:2]), "Meta")


def by_schema(x: Tensor) -> tuple[Tensor, ...]:
    sums = torch.ops.tests_convolutions_by_schema.written(x)
    return x, sums, x * 2


BATCHES: dict[str, Any] = {"x": {0: Dim("batch", min=1, max=8)}}
IMAGES: dict[str, Any] = {
    "x": {0: Dim("batch", min=1, max=4), 2: Dim("high", min=6, max=40), 3: Dim("wide", max=40)}
}


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """A module with statistics as if it had been trained."""
    torch.manual_seed(0)
    model = make().eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model


def same(model: Callable[..., Any], program: hotstart.Program, x: Tensor) -> None:
    with torch.no_grad():
        expected, found = model(x), program(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    one = expected if isinstance(expected, list) else [expected]
    two = found if isinstance(found, list) else [found]
    assert [t.stride() for t in one] == [t.stride() for t in two]


def stitched(program: hotstart.Program) -> str:
    (call,) = program.artifact.calls
    return "\n".join(variant.code.text for variant in call.stitched)
