"""Branches on what tensors hold: programs have both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, both, build, check

ROWS = {"x": {0: Dim("rows", min=1, max=16)}}

torch.manual_seed(0)
CALLS = tuple(
    (torch.randn(rows, 4) * scale,) for rows, scale in ((3, 1), (3, 9), (1, 0), (16, 0.1))
)
MASKS = {"x": {0: Dim("batch", min=1, max=4), 1: Dim("seq", min=1, max=8)}}
MASKS["mask"] = MASKS["x"]


def masked(batch: int, seq: int, kept: float) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, seq, 8), torch.rand(batch, seq) < kept


MASKED = (masked(2, 4, 1), masked(2, 4, 0.5), masked(1, 1, 1), masked(4, 8, 0.5), masked(4, 8, 0))


class Attends(nn.Module):
    """Attention that leaves a mask out where all tokens count."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        h = self.project(x)
        if mask is not None and mask.all():
            mask = None
        scores = h @ h.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :], -1e9)
        return self.out(scores.softmax(-1) @ h)


class LeavesEarly(nn.Module):
    """Layers of which those left are skipped once a classifier is sure."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.sure = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        done = 0
        for layer in self.layers:
            x = torch.relu(layer(x))
            done += 1
            if self.sure(x).max().item() > 0.1:
                break
        return x, done


class AsksInEachLayer(nn.Module):
    """Layers that ask the same of a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        found = x > 1
        for layer in self.layers:
            x = layer(x)
            if found.any():
                x = x.masked_fill(found, 0)
        return x


@both
def test_each_side_serves_the_calls_that_take_it(compiler: str, tmp_path: Path) -> None:
    model = Attends().eval()
    program = check(model, *MASKED, compiler=compiler, tolerance=1e-6, dynamic_shapes=MASKS)
    names = [variant.name for variant in program.report.variants]
    assert sum("branches yes" in name for name in names) == len(names) / 2
    program.save(tmp_path / "masked.hot")
    loaded = hotstart.load(tmp_path / "masked.hot", model)
    for call in MASKED:
        assert_same(loaded(*call), model(*call), tolerance=1e-6)


def test_a_layer_after_which_a_call_may_leave_has_a_way_of_its_own() -> None:
    program = check(LeavesEarly().eval(), *CALLS, dynamic_shapes=ROWS)
    assert len(program.report.variants) == 4


def test_the_same_question_is_one_branch() -> None:
    program = check(AsksInEachLayer().eval(), *CALLS, dynamic_shapes=ROWS)
    assert len(program.report.variants) == 2


def asks_again_after_a_write(x: Tensor) -> Tensor:
    y = x.clone()
    if (y > 0).any():
        x = x + 1
    y.fill_(-1)
    return x * 2 if (y > 0).any() else x


def asks_again_after_a_write_through_data(x: Tensor) -> Tensor:
    y = x.clone()
    if y.max() > 0:
        x = x + 1
    y.data.fill_(-1)
    return x * 2 if y.max() > 0 else x


def asks_a_flag_that_changes(x: Tensor) -> Tensor:
    flag = (x > 0).any()
    if flag:
        x = x + 1
    flag.logical_not_()
    return x * 2 if flag else x


def of_two_numbers(x: Tensor) -> Tensor:
    low, high = x.min().item(), x.max().item()
    return x - low if low < -0.5 and (high > 0.5 or high == 0) else x


def of_a_number_and_a_size(x: Tensor) -> Tensor:
    return x * 2 if (x > 0).sum().item() * 2 > x.shape[0] * x.shape[1] else x


def counts(x: Tensor) -> tuple[Tensor, int]:
    count = int((x > 0).sum())
    return (x, 0) if count == 0 else (x / count, count)


def other_shapes(x: Tensor) -> Any:
    return {"rows": x[:1], "sum": x.sum()} if x.abs().max() > 2 else [x, x.shape[0]]


def in_a_region(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ x.T
        if y.max() > 4:
            y = y * 2
        y = y @ y
    return y.float()


def attends_before(x: Tensor) -> Tensor:
    y = nn.functional.scaled_dot_product_attention(x, x, x)
    return y * 2 if y.max() > 1 else y


def writes_afterwards(x: Tensor) -> Tensor:
    if x.max() > 1:
        x.mul_(2)
    else:
        x.add_(torch.rand(x.shape))
    return x


def draws_before_what_x_decides(x: Tensor) -> Tensor:
    y = nn.functional.dropout(x, 0.5)
    return y * 2 if x.max() > 1 else y


def writes_before_what_x_decides(x: Tensor, kept: Tensor) -> Tensor:
    kept.add_(x[0])
    return kept + x.max() if x.max() > 1 else kept.clone()


def equal_tensors(x: Tensor) -> Tensor:
    return x + 1 if torch.equal(x, x.abs()) or x.equal(x[:1]) else -x


def close_tensors(x: Tensor) -> tuple[Tensor, bool]:
    same = torch.allclose(x, x.round(), atol=0.2)
    return (x + 1 if same else x), same


def nonzero_tensor(x: Tensor) -> Tensor:
    return x * 3 if torch.is_nonzero((x > 2).any()) else x


def one_of_some(x: Tensor) -> Tensor:
    place = x.argmax().item()
    return x + place if place in (0, 1, 2) else x


def as_many_rounds(x: Tensor) -> Tensor:
    count = (x > 0).sum().item()
    for number in range(3):
        if number >= count:
            break
        x = x + number
    return x


def those_that_are_positive(x: Tensor) -> Tensor:
    kept = [column for column in x.unbind(1) if column.sum() > 0]
    return torch.stack(kept) if kept else x


@pytest.mark.parametrize(
    "function",
    [
        draws_before_what_x_decides,
        equal_tensors,
        close_tensors,
        nonzero_tensor,
        one_of_some,
        as_many_rounds,
        those_that_are_positive,
        asks_again_after_a_write,
        asks_again_after_a_write_through_data,
        asks_a_flag_that_changes,
        of_two_numbers,
        of_a_number_and_a_size,
        counts,
        other_shapes,
        in_a_region,
        attends_before,
        writes_afterwards,
    ],
)
def test_sides_are_taken_as_in_eager(function: Callable[..., Any]) -> None:
    check(function, *CALLS, dynamic_shapes=ROWS)


def test_what_decides_is_asked_before_all_else() -> None:
    calls = [(x, torch.zeros(4)) for (x,) in CALLS]
    program = check(writes_before_what_x_decides, *calls, dynamic_shapes=ROWS)
    first = next(iter(program.code.values()))
    assert first.index("leaves(") < first.index("(args)")


@pytest.mark.thorough
def test_what_comes_after_a_branch_on_arguments_is_native() -> None:
    program = check(
        Attends().eval(), *MASKED, compiler="inductor", tolerance=1e-6, dynamic_shapes=MASKS
    )
    assert not program.report.not_native


def writes_before(x: Tensor) -> Tensor:
    x.add_(1)
    return x * 2 if x.max() > 1 else x


def draws_before(x: Tensor) -> Tensor:
    y = nn.functional.dropout(x, 0.5)
    return y * 2 if y.max() > 1 else y


def drops_in_attention_before(x: Tensor) -> Tensor:
    y = nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
    return y * 2 if y.max() > 1 else y


def reads_before_a_write(x: Tensor) -> Tensor:
    most = x.max()
    number = most.item()
    most.add_(1)
    return x * 2 if number > 1 else x


def halves(x: Tensor) -> Tensor:
    while x.max() > 1:
        x = x / 2
    return x


def asks_much(x: Tensor) -> Tensor:
    for number in range(5):
        if x.max() > number:
            x = x - 0.5
        else:
            x = x + 1
    return x


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (writes_before, "must not be done twice: it writes to a tensor that is not empty"),
        (draws_before, "must not be done twice: it draws random numbers"),
        (drops_in_attention_before, "must not be done twice: it draws random numbers"),
        (reads_before_a_write, "depends on the contents of a tensor"),
        (halves, "where it ends a loop, do all rounds"),
        (asks_much, "depends on the contents of a tensor"),
    ],
)
def test_what_has_no_sides_is_refused(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=why) as caught:
        build(function, *CALLS[0], dynamic_shapes=ROWS)
    assert type(caught.value) is hotstart.CaptureError
    assert Path(__file__).name in str(caught.value)
