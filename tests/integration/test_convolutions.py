"""Networks of convolutions: images between pieces, and weights for several sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options

pytestmark = pytest.mark.usefixtures("kept_pieces")

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


@pytest.mark.parametrize(
    "block", [Residual, Written, Excited, Normed, Grouped], ids=lambda block: block.__name__
)
def test_blocks_hand_on_images_channels_last(block: Callable[[int], nn.Module]) -> None:
    model = made(lambda: Network(block))
    program = hotstart.compile(model, (torch.randn(2, 3, 20, 20),), dynamic_shapes=BATCHES)
    assert program.report.op_by_op == ()
    assert program.report.not_packed == ()
    assert program.report.splits == ()
    assert program.report.unique == 3
    assert "fit(" not in stitched(program)
    for batch in (1, 2, 3, 8):
        same(model, program, torch.randn(batch, 3, 20, 20))


@pytest.mark.parametrize(
    "block",
    [pytest.param(Shuffled, marks=pytest.mark.slow), Strided],
    ids=lambda block: block.__name__,
)
def test_blocks_that_need_images_as_traced(block: Callable[[int], nn.Module]) -> None:
    model = made(lambda: Network(block))
    program = hotstart.compile(model, (torch.randn(2, 3, 20, 20),), dynamic_shapes=BATCHES)
    for batch in (1, 2, 3, 8):
        same(model, program, torch.randn(batch, 3, 20, 20))


@pytest.mark.parametrize("block", [Residual, Written], ids=lambda b: b.__name__)
def test_images_that_are_returned_are_laid_out_as_in_eager(
    block: Callable[[int], nn.Module],
) -> None:
    model = made(lambda: Features(block))
    program = hotstart.compile(model, (torch.randn(2, 3, 20, 20),), dynamic_shapes=BATCHES)
    for batch in (1, 2, 5):
        same(model, program, torch.randn(batch, 3, 20, 20))


def test_an_argument_that_is_channels_last() -> None:
    model = made(lambda: Network(Residual))
    x = torch.randn(2, 3, 20, 20).to(memory_format=torch.channels_last)
    program = hotstart.compile(model, (x,), dynamic_shapes=BATCHES)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 20, 20)
        same(model, program, x.to(memory_format=torch.channels_last))
        same(model, program, x)


@pytest.mark.parametrize("ends", [by_stride, by_format, by_address, by_copy])
def test_an_argument_of_another_layout_is_refused_where_a_later_piece_asks(
    ends: Callable[[Tensor], Any],
) -> None:
    model = made(lambda: Headed(ends))
    program = hotstart.compile(model, (torch.randn(2, 3, 20, 20),), dynamic_shapes=BATCHES)
    x = torch.randn(3, 3, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(hotstart.ContractError, match=r"layout|strides|contiguous"):
        program(x.to(memory_format=torch.channels_last))


@pytest.mark.parametrize("ends", [by_operator, by_schema])
def test_an_operator_that_writes_to_an_image_of_an_earlier_piece(
    ends: Callable[[Tensor], Any],
) -> None:
    model = made(lambda: Headed(ends))
    program = hotstart.compile(model, (torch.randn(2, 3, 20, 20),), dynamic_shapes=BATCHES)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 20, 20)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_an_image_of_one_channel_may_be_called_channels_last() -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    x = torch.randn(2, 1, 8, 8)
    program = hotstart.compile(model, (x,), dynamic_shapes={"input": BATCHES["x"]})
    for batch in (1, 3):
        x = torch.randn(batch, 1, 8, 8).to(memory_format=torch.channels_last)
        assert x.is_contiguous()
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    assert program.relayouts == {}


def test_weights_of_one_channel_that_are_channels_last_are_refused(tmp_path: Path) -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(1, 4, 3)))
    options = Options(compiler="op_by_op")
    program = hotstart.compile(model, (torch.randn(2, 1, 8, 8),), options=options)
    program.save(tmp_path / "model.hot", check=False)
    last = made(lambda: nn.Sequential(nn.Conv2d(1, 4, 3))).to(memory_format=torch.channels_last)
    with pytest.raises(hotstart.ModelMismatch, match=r"strides \[9, 9, 3, 1\].*\[9, 1, 3, 1\]"):
        hotstart.load(tmp_path / "model.hot", last)


class Thin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :1]
        made: Tensor = self.down(self.up(x).relu()).sigmoid() + x
        return made


def test_pieces_hand_on_images_of_one_channel() -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Thin(), Thin(), Thin()))
    images = {"input": IMAGES["x"] | {3: Dim("wide", min=6, max=40)}}
    program = hotstart.compile(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=images)
    for batch, high, wide in ((1, 6, 9), (4, 12, 12)):
        x = torch.randn(batch, 3, high, wide)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_volumes() -> None:
    model = made(Volumes)
    program = hotstart.compile(model, (torch.randn(2, 8, 6, 6, 6),), dynamic_shapes=BATCHES)
    for batch in (1, 2, 7):
        same(model, program, torch.randn(batch, 8, 6, 6, 6))


def test_images_of_any_size() -> None:
    model = made(lambda: Network(Residual))
    program = hotstart.compile(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=IMAGES)
    for batch, high, wide in ((1, 6, 9), (2, 16, 32), (4, 31, 1)):
        same(model, program, torch.randn(batch, 3, high, wide))


def test_down_and_up_again() -> None:
    model = made(Decoder)
    program = hotstart.compile(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=BATCHES)
    for batch in (1, 3):
        same(model, program, torch.randn(batch, 3, 16, 16))


def test_a_split_operator_reads_images_as_traced() -> None:
    model = made(lambda: Network(Residual))
    x = torch.randn(2, 3, 20, 20)
    program = hotstart.compile(
        model, (x,), dynamic_shapes=BATCHES, split_on=["auto", "aten::adaptive_avg_pool2d"]
    )
    for batch in (1, 4):
        same(model, program, torch.randn(batch, 3, 20, 20))


def test_plain_weights_leave_layouts_as_traced() -> None:
    model = made(lambda: Network(Residual))
    x = torch.randn(2, 3, 20, 20)
    options = Options(pack_weights=False, compiler="op_by_op")
    program = hotstart.compile(model, (x,), dynamic_shapes=BATCHES, options=options)
    assert "contiguous" not in stitched(program)
    with torch.no_grad():
        assert torch.equal(program(x), model(x))


class Wide(nn.Module):
    """oneDNN lays out its weight otherwise for a batch of one than for more."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu()) + x


class TestWeightsOfSeveralLayouts:
    """A call chooses by its size among weights that are packed in several layouts."""

    @pytest.fixture
    def by_batch(self, compiled_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Layouts as if oneDNN chose one for single images, and others by odd and even."""

        def layout(weight: Any, dtype: Any, settings: Any, shape: Any, threads: Any) -> Any:
            return (0,) if weight[-1] == 1 else (shape[0] == 1, shape[0] % 2)

        monkeypatch.setattr("hotstart._torch.convolutions._layout", layout)

    def test_every_size_is_served(self, by_batch: None, tmp_path: Path) -> None:
        model = made(Wide)
        dims: dict[str, Any] = {"x": {0: Dim("batch", min=1, max=40)}}
        program = hotstart.compile(model, (torch.randn(2, 64, 9, 9),), dynamic_shapes=dims)
        (unit,) = program.artifact.units
        assert "chosen = (1, 0, 2, 0, 2, 0, " in unit.source
        assert len(unit.preparations) == 4
        for batch in (1, 2, 3, 16, 17, 39, 40):
            same(model, program, torch.randn(batch, 64, 9, 9))
        program.save(tmp_path / "model.hot")
        for pack in ("now", "never", "first_call"):
            loaded = hotstart.load(tmp_path / "model.hot", model, pack=pack)  # type: ignore[arg-type]
            for batch in (1, 2, 3):
                same(model, loaded, torch.randn(batch, 64, 9, 9))

    def test_changed_weights_are_packed_again_for_every_size(self, by_batch: None) -> None:
        model = made(Wide)
        program = hotstart.compile(model, (torch.randn(2, 64, 9, 9),), dynamic_shapes=BATCHES)
        for _ in range(2):
            for batch in (1, 2, 3):
                same(model, program, torch.randn(batch, 64, 9, 9))
            with torch.no_grad():
                model.b.weight.mul_(1.5)
        model.load_state_dict(made(Wide).state_dict(), assign=True)
        same(model, program, torch.randn(1, 64, 9, 9))

    def test_layouts_as_onednn_chooses_them(self) -> None:
        model = made(Wide)
        program = hotstart.compile(model, (torch.randn(2, 64, 28, 28),), dynamic_shapes=BATCHES)
        for batch in range(1, 9):
            same(model, program, torch.randn(batch, 64, 28, 28))
