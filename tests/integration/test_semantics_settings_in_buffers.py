"""Whole numbers in buffers that no checkpoint has: see docs/semantics.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, both, build, check

LENGTHS = {"x": {0: Dim("batch", min=1, max=4), 1: Dim("length", sizes=[3, 8, 9], ranges=[])}}

torch.manual_seed(0)
CALLS = tuple((torch.randn(2, length),) for length in (8, 3, 9))


class Pads(nn.Module):
    """Pads to whole frames, as codecs do: by reflection where that is possible."""

    def __init__(self, stride: int = 4, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("stride", torch.tensor(stride), persistent=persistent)
        self.linear = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.ceil(x.shape[1] / self.stride).to(torch.int64)
        missing = frames * self.stride - x.shape[1]
        if x.shape[1] <= max(missing, self.stride):
            x = nn.functional.pad(x, (0, missing))
        else:
            x = nn.functional.pad(x, (self.stride, missing), mode="reflect")
        return self.linear(x[..., None])


@both
def test_they_are_known_where_forward_branches_on_them(compiler: str, tmp_path: Path) -> None:
    model = Pads().eval()
    program = check(model, *CALLS, compiler=compiler, tolerance=1e-6, dynamic_shapes=LENGTHS)
    program.save(tmp_path / "model.hot")
    loaded = hotstart.load(tmp_path / "model.hot", model)
    for call in CALLS:
        assert_same(loaded(*call), model(*call), tolerance=1e-6)


@both
def test_a_branch_on_what_follows_from_sizes_splits_their_range(compiler: str) -> None:
    shapes = {"x": {0: Dim("batch", min=1, max=4), 1: Dim("length", min=2, max=40)}}
    calls = [(torch.randn(2, length),) for length in (8, 2, 3, 4, 5, 6, 39, 40)]
    program = check(Pads().eval(), *calls, compiler=compiler, tolerance=1e-6, dynamic_shapes=shapes)
    lengths = {variant.name.split("length=")[1] for variant in program.report.variants}
    assert lengths == {"2..4", "5..40"}


def by_constants(x: Tensor) -> Tensor:
    frames = torch.ceil(torch.tensor(x.shape[0]) / 4)
    return x * 2 if frames > 3 else x + 1


def by_parity(x: Tensor) -> Tensor:
    return x * 2 if torch.tensor(x.shape[0]) % 2 == 0 else x + 1


def by_chance(x: Tensor) -> Tensor:
    return x * 2 if torch.rand(()) + x.shape[0] > 0.5 else x + 1


def test_a_branch_on_a_tensor_of_sizes_alone_is_decided_by_them() -> None:
    shapes = {"x": {0: Dim("rows", min=1, max=40)}}
    calls = [(torch.randn(rows, 2),) for rows in (5, 1, 12, 13, 16, 40)]
    check(by_constants, *calls, dynamic_shapes=shapes)
    check(by_parity, *calls, dynamic_shapes=shapes)  # of too many sizes: both sides are there
    with pytest.raises(hotstart.CaptureError, match="it draws random numbers"):
        build(by_chance, *calls[0], dynamic_shapes=shapes)


def test_another_number_later_is_an_error_in_the_call() -> None:
    model = Pads().eval()
    program = build(model, *CALLS[0], dynamic_shapes=LENGTHS)
    model.stride.fill_(2)  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="expected a buffer that still holds 4"):
        program(*CALLS[0])
    model.stride.fill_(4)  # type: ignore[operator]
    assert_same(program(*CALLS[0]), model(*CALLS[0]))


def test_numbers_that_a_checkpoint_has_are_not_known() -> None:
    model = Pads(persistent=True).eval()
    program = check(model, *CALLS, dynamic_shapes=LENGTHS)
    assert len(program.report.variants) > 1
    model.stride.fill_(2)  # type: ignore[operator]
    assert_same(program(*CALLS[0]), model(*CALLS[0]))


def test_a_branch_on_a_buffer_alone_is_checked_in_calls() -> None:
    class Doubles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("doubles", torch.tensor(True), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if self.doubles else x + 1

    model = Doubles()
    program = check(model, CALLS[0])
    model.doubles = torch.tensor(False)
    with pytest.raises(RuntimeError, match="still holds True"):
        program(*CALLS[0])


def test_a_buffer_that_forward_writes_to_is_refused() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor(0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            y = x * 2 if self.count > 1 else x + 1
            self.count += 1
            return y

    with pytest.raises(hotstart.CaptureError, match="forward writes to count"):
        build(Counts(), *CALLS[0])
