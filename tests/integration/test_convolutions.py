"""Pieces hand on images channels last, and nobody outside can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from tests.integration.images import (
    BATCHES,
    IMAGES,
    Decoder,
    Excited,
    Features,
    Grouped,
    Headed,
    Network,
    Normed,
    Residual,
    Shuffled,
    Strided,
    Volumes,
    Written,
    by_address,
    by_copy,
    by_format,
    by_operator,
    by_schema,
    by_stride,
    made,
    same,
    stitched,
)

pytestmark = pytest.mark.usefixtures("kept_pieces")


@pytest.mark.thorough
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


IMAGE, VOLUME = (3, 20, 20), (8, 6, 6, 6)
NETWORKS = {
    "a piece reads its image by address": (lambda: Network(Strided), IMAGE),
    "a piece reshapes its image": (lambda: Network(Shuffled), IMAGE),
    "every image is returned": (lambda: Features(Residual), IMAGE),
    "every image is returned and written to": (lambda: Features(Written), IMAGE),
    "down and up again": (Decoder, (3, 16, 16)),
    "three dimensions": (Volumes, VOLUME),
}
SLOW = {"a piece reshapes its image"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        pytest.param(*given, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, given in NETWORKS.items()
    ],
)
def test_results_are_laid_out_as_in_eager(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = made(make)
    program = hotstart.compile(model, (torch.randn(2, *shape),), dynamic_shapes=BATCHES)
    for batch in (1, 2, 3, 8):
        same(model, program, torch.randn(batch, *shape))


@pytest.mark.slow
def test_an_argument_that_is_channels_last() -> None:
    model = made(lambda: Network(Residual))
    x = torch.randn(2, 3, 20, 20).to(memory_format=torch.channels_last)
    program = hotstart.compile(model, (x,), dynamic_shapes=BATCHES)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 20, 20)
        same(model, program, x.to(memory_format=torch.channels_last))
        same(model, program, x)


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.slow
def test_pieces_hand_on_images_of_one_channel() -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Thin(), Thin(), Thin()))
    images = {"input": IMAGES["x"] | {3: Dim("wide", min=6, max=40)}}
    program = hotstart.compile(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=images)
    for batch, high, wide in ((1, 6, 9), (4, 12, 12)):
        x = torch.randn(batch, 3, high, wide)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_images_of_any_size() -> None:
    model = made(lambda: Network(Residual))
    program = hotstart.compile(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=IMAGES)
    for batch, high, wide in ((1, 6, 9), (2, 16, 32), (4, 31, 1)):
        same(model, program, torch.randn(batch, 3, high, wide))


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

        monkeypatch.setattr("hotstart._torch.packing.convolutions._layout", layout)

    @pytest.mark.thorough
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

    @pytest.mark.thorough
    def test_layouts_as_onednn_chooses_them(self) -> None:
        model = made(Wide)
        program = hotstart.compile(model, (torch.randn(2, 64, 28, 28),), dynamic_shapes=BATCHES)
        for batch in range(1, 9):
            same(model, program, torch.randn(batch, 64, 28, 28))
