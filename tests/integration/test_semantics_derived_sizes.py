"""Dimensions that follow from others: multiples of an axis, sums of axes, and numbers beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention, silu

import hotstart
from hotstart import ContractError, Dim, RangeError
from tests.integration.alone import Saved
from tests.integration.c_api import Library, Program, Refused, equal
from tests.opening import opens_library_alone
from tests.semantics import both, build, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
HEIGHT, WIDTH = Dim("height", max=6), Dim("width", max=6)


class Halving(nn.Module):
    """An image halved twice and enlarged again, beside itself: sizes are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.deeper = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 4, 4, stride=4)
        self.last = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = silu(self.first(x))
        small = silu(self.deeper(silu(self.down(whole))))
        return self.last(torch.cat([self.up(small), whole], 1))


def shuffled(x: Tensor) -> tuple[Tensor, int]:
    return pixel_shuffle(pixel_unshuffle(x, 4) * 2, 2), x.shape[2] // 4


def windows(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    y = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
    y = y.reshape(-1, 16, channels).softmax(1)
    y = y.view(batch, height // 4, width // 4, 4, 4, channels)
    return y.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)


def asking(x: Tensor) -> Tensor:
    if x.shape[2] % 4 or x.shape[3] % 4:
        raise ValueError("sizes have to be multiples of 4")
    return nn.functional.avg_pool2d(x, 4)


@both
@pytest.mark.parametrize("model", [Halving().eval(), shuffled, windows, asking])
def test_images_whose_sizes_are_multiples(model: Any, compiler: str) -> None:
    sizes = ((3, 2), (1, 1), (6, 6), (2, 1), (1, 5))
    calls = [(R(1, 3, 4 * height, 4 * width),) for height, width in sizes]
    shapes = {"x": {2: 4 * HEIGHT, 3: 4 * WIDTH}}
    program = check(model, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-5)
    for wrong, expected in {
        (10, 8): r"x: got size 10 in dimension 2, takes 4\*height there, for a whole number 'he",
        (8, 2): r"x: got size 2 in dimension 3, takes 4\*width there",
        (28, 8): r"x: got axis 'height' of size 7, 4\*height of 28, takes 1..6",
        (8, 0): r"x: got axis 'width' of size 0, 4\*width of 0, takes 1..6",
    }.items():
        with pytest.raises(ContractError, match=expected):
            program(R(1, 3, *wrong))


@pytest.mark.parametrize("model", [Halving().eval(), shuffled, windows, asking])
def test_the_error_says_that_sizes_have_to_be_multiples(model: Any) -> None:
    shapes = {"x": {2: Dim("height", min=8, max=48), 3: Dim("width", min=8, max=48)}}
    with pytest.raises(RangeError, match=r"declare 'height' as 4 \* Dim\('height', min=2, max=12"):
        build(model, R(1, 3, 16, 8), dynamic_shapes=shapes)


class Step(nn.Module):
    """Attention to keys of earlier calls and to new ones, under a mask over both."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        batch, new, _ = x.shape
        query, key, value = self.project(x).view(batch, new, 3, 2, 8).permute(2, 0, 3, 1, 4)
        keys, values = torch.cat([keys, key], 2), torch.cat([values, value], 2)
        found = scaled_dot_product_attention(query, keys, values, mask[:, None, None])
        return found.transpose(1, 2).reshape(batch, new, 16), keys, values


BATCH, PAST, NEW = Dim("batch", max=4), Dim("past", min=0, max=32), Dim("new", max=8)
STEP = {
    "x": {0: BATCH, 1: NEW},
    "keys": {0: BATCH, 2: PAST},
    "values": {0: BATCH, 2: PAST},
    "mask": {0: BATCH, 1: PAST + NEW},
}


def step(batch: int, past: int, new: int) -> tuple[Tensor, ...]:
    mask = torch.ones(batch, past + new, dtype=torch.bool)
    return R(batch, new, 16), R(batch, 2, past, 8), R(batch, 2, past, 8), mask


@both
def test_a_mask_over_what_was_and_what_is_new(compiler: str) -> None:
    sizes = ((2, 5, 3), (1, 0, 1), (4, 32, 8), (2, 1, 1), (3, 0, 8))
    program = check(
        Step().eval(),
        *(step(*each) for each in sizes),
        compiler=compiler,
        dynamic_shapes=STEP,
        tolerance=1e-5,
    )
    x, keys, values, _ = step(2, 5, 3)
    expected = "mask: got size 9 in dimension 1, takes size 8 there, past + new for axis 'past' of 5 in keys and axis 'new' of 3 in x; pass this size"  # noqa: E501
    with pytest.raises(ContractError) as error:
        program(x, keys, values, torch.ones(2, 9, dtype=torch.bool))
    assert str(error.value).startswith(expected)


@pytest.mark.thorough
def test_the_error_says_what_a_size_follows_from() -> None:
    new = Dim("new", min=2, max=8)
    shapes = {**STEP, "x": {0: BATCH, 1: new}, "mask": {0: BATCH, 1: Dim("all", max=40)}}
    with pytest.raises(RangeError, match=r"declare 'all' as new \+ past, computed of those Dims"):
        build(Step().eval(), *step(2, 5, 3), dynamic_shapes=shapes)


@mostly_eager
def test_sizes_with_numbers_beside_and_single_sizes(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        frames = x[:, 1:].unflatten(1, (-1, 4)).mean(-1)
        return frames, y[1:] - y[:-1]

    frames = Dim("frames", min=0, max=9, ranges=[(2, 6)], sizes=[1])
    shapes = {"x": {1: 4 * frames + 1}, "y": {0: frames + 2}}
    calls = [(R(2, 4 * n + 1), R(n + 2)) for n in (4, 0, 1, 2, 6, 7, 9)]
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-6)
    assert "frames=1" in program.code
    with pytest.raises(ContractError, match=r"x: got size 0 in dimension 1, takes 4\*frames \+ 1"):
        program(R(2, 0), R(2))
    with pytest.raises(ContractError, match=r"y: .* takes size 5 there, frames \+ 2 for axis 'fr"):
        program(R(2, 13), R(4))


@mostly_eager
def test_an_argument_of_another_layout_and_one_that_is_written_to(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        y.add_(x.unflatten(1, (-1, 4)).sum(-1))
        return x * 2

    shapes = {"x": {1: 4 * WIDTH}, "y": {1: WIDTH}}
    turned = (R(12, 3).t(), R(3, 3))
    check(f, (R(3, 8), R(3, 2)), turned, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-6)


@both
def test_windows_that_are_shifted_and_masked(compiler: str) -> None:
    """A remainder of sizes, and a condition on both that leaves one of them a single value."""

    def f(x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        mask = torch.zeros(1, height, width, 1)
        parts = (slice(0, -4), slice(-4, -2), slice(-2, None))
        for number, (rows, columns) in enumerate((r, c) for r in parts for c in parts):
            mask[:, rows, columns] = number
        return torch.roll(x, (-2, -2), (1, 2)) + mask

    height, width = Dim("height", min=2, max=3), Dim("width", max=3)
    shapes = {"x": {1: 4 * height, 2: 4 * width}}
    sizes = ((2, 3), (3, 3), (2, 1), (3, 1))
    calls = [(R(2, 4 * h, 4 * w, 8),) for h, w in sizes]
    check(f, *calls, compiler=compiler, dynamic_shapes=shapes)


@both
@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (lambda x: x.squeeze(0) * 2, {"x": {0: Dim("n", min=2, max=8) - 1}}),
        (lambda x: (x[1:] + 1).squeeze(0), {"x": {0: Dim("n", min=2, max=7)}}),
        (lambda x: x[: x.shape[0] - 2].squeeze(0) * 2, {"x": {0: Dim("n", min=3, max=7)}}),
    ],
)
def test_sizes_of_1_where_an_axis_is_larger(f: Any, shapes: Any, compiler: str) -> None:
    low = shapes["x"][0].min
    calls = [(R(rows, 3),) for rows in (low + 3, low, low + 1)]
    check(f, *calls, compiler=compiler, dynamic_shapes=shapes)


WRONG = [(10, 8, 3), (0, 8, 3), (28, 8, 3), (8, 8, 4), (8, 9, 3)]


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(16))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Of shapes [4 * rows, 2 * columns] and [rows + columns]."""
        rows, columns = x.shape[0] // 4, x.shape[1] // 2
        x = (nn.functional.gelu(x).view(rows, 4, columns, 2).transpose(1, 2).sum((2, 3))) * 3
        return torch.cat([x.sum(1), x.sum(0)]) * y + self.gain.sum()


def shuffled_args(height: int, width: int, both: int) -> tuple[Tensor, Tensor]:
    return R(height, width), R(both)


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    shapes = {"x": {0: 4 * HEIGHT, 1: 2 * WIDTH}, "y": {0: HEIGHT + WIDTH}}
    folder = tmp_path_factory.mktemp("derived")
    return Saved(folder, Shuffled(), *shuffled_args(8, 6, 5), dynamic_shapes=shapes)


@pytest.mark.thorough
def test_a_loaded_program_takes_the_same(derived: Saved) -> None:
    loaded = hotstart.load(derived.file, Shuffled().eval())
    for rows, columns in ((2, 3), (1, 1), (6, 6)):
        args = shuffled_args(4 * rows, 2 * columns, rows + columns)
        loaded(*args)
    for wrong in WRONG:
        with pytest.raises(ContractError) as expected:
            derived.program(*shuffled_args(*wrong))
        with pytest.raises(ContractError) as found:
            loaded(*shuffled_args(*wrong))
        assert str(found.value) == str(expected.value)


@opens_library_alone
def test_c_takes_the_same_and_refuses_in_the_same_words(derived: Saved, library: Library) -> None:
    served = Program(library, derived.file, derived.weights)
    assert served.describe()["arguments"] == [
        ("x", torch.float32, [-1, -1]), ("y", torch.float32, [-1]),
    ]  # fmt: skip
    for rows, columns in ((2, 3), (1, 1), (6, 6), (1, 5)):
        args = shuffled_args(4 * rows, 2 * columns, rows + columns)
        assert equal(served(*args), [derived.program(*args)])
    for wrong in WRONG:
        with pytest.raises(ContractError) as expected:
            derived.program(*shuffled_args(*wrong))
        with pytest.raises(Refused) as found:
            served(*shuffled_args(*wrong))
        assert str(found.value) == str(expected.value)
    served.close()


def test_without_torch_it_is_the_same(derived: Saved) -> None:
    found = derived.same(
        f"""
for rows, columns, both in [(8, 6, 5), (4, 2, 2), *{WRONG}]:
    x = np.arange(rows * columns).reshape(rows, columns) / 7
    found.append(tried(program, array(x), array(np.arange(both) / 3)))
"""
    )
    assert [each[0] for each in found] == ["float32"] * 2 + ["ContractError"] * len(WRONG)


@pytest.mark.thorough
def test_the_check_at_save_runs_at_sizes_that_fit(tmp_path: Path) -> None:
    shapes = {"x": {2: 4 * HEIGHT, 3: 4 * WIDTH}}
    program = build(windows, R(1, 3, 8, 12), compiler="inductor", dynamic_shapes=shapes)
    program.save(tmp_path / "model.hot", check_inputs=((R(1, 3, 16, 4),), {}))
    loaded = hotstart.load(tmp_path / "model.hot", windows)
    x = R(1, 3, 24, 8)
    assert loaded(x).equal(program(x))
