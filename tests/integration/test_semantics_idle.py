"""Branches and loops that leave out only what would do nothing: see docs/semantics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, build, check

ROWS = {"x": {0: Dim("rows", min=1, max=64)}}

torch.manual_seed(0)
MANY = torch.randn(9, 4)
CALLS = ((MANY,), (MANY[:1],), (-MANY,), (MANY * 0,), (MANY[:2].abs(),))
"""Calls in which every expert has rows, or some of them have none."""

EXPERTS = 3


def chosen(x: Tensor) -> Tensor:
    """The expert of each row."""
    return x[:, :EXPERTS].argmax(1)


class Experts(nn.Module):
    """A mixture of experts, in a loop of the kind that a function is."""

    def __init__(self, loop: Callable[[nn.ModuleList, Tensor], Tensor]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(EXPERTS))
        self.loop = loop

    def forward(self, x: Tensor) -> Tensor:
        return self.loop(self.experts, x)


def goes_on(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        (rows,) = torch.where(chosen(x) == number)
        if rows.shape[0] == 0:
            continue
        result.index_add_(0, rows, torch.relu(expert(x[rows])))
    return result


def asks_first(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        rows = (chosen(x) == number).nonzero()[:, 0]
        if rows.numel() > 0:
            given = torch.relu(expert(x[rows]))
            result[rows] += given
    return result


def asks_for_truth(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = x.clone()
    for number, expert in enumerate(experts):
        (rows,) = torch.where(chosen(x) == number)
        if len(rows):
            result[rows] = expert(x[rows])
    return result


def over_those_found(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    mask = nn.functional.one_hot(chosen(x), EXPERTS + 1).T
    for number in (mask.sum(-1) > 0).nonzero():
        number = number[0]
        if number == EXPERTS:
            continue
        (rows,) = torch.where(mask[number])
        result.index_add_(0, rows, torch.relu(x[rows]) * (number + 1))
    return result


def over_those_with_two(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    mask = nn.functional.one_hot(chosen(x), EXPERTS).T
    for number in torch.nonzero(mask.sum(-1) > 1):
        rows = mask[number[0]].nonzero()[:, 0]
        result[rows] = x[rows] * 2
    return result


def where_a_tensor_says_so(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        if x[:, number].max() > 0.5:
            (rows,) = torch.where(chosen(x) == number)
            result.index_copy_(0, rows, expert(x[rows]))
    return result


def collects(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        (rows,) = torch.where(chosen(x) == number)
        if rows.numel() > 0:
            parts = []
            for number, part in enumerate((x[rows], -x[rows])):
                parts.append(expert(part) * number)
            result.index_add_(0, rows, torch.stack(parts).sum(0))
    return result


def where_a_mask_has_any(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        mask = chosen(x) == number
        if mask.any():
            result[mask] += expert(x[mask]) * x.sigmoid()[mask].sum(-1, keepdim=True)
    return result


def goes_on_where_a_mask_has_none(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        mask = chosen(x) == number
        if not mask.any():
            continue
        result[mask] = result[mask] + expert(x[mask])
    return result


def goes_on_where_a_sum_is_0(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        mask = chosen(x) == number
        if mask.sum() == 0:
            continue
        result[mask] = expert(x[mask])
    return result


def where_a_mask_selects_rows(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        mask = chosen(x) == number
        rows = x[mask]
        if len(rows) > 0:
            result[mask] += expert(rows)
    return result


def by_a_mask_where_a_tensor_says_so(experts: nn.ModuleList, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        if x[:, number].max() > 0.5:
            mask = chosen(x) == number
            result[mask] = expert(x[mask])
    return result


@pytest.mark.thorough
@pytest.mark.parametrize(
    "loop",
    [
        where_a_mask_has_any,
        goes_on_where_a_mask_has_none,
        goes_on_where_a_sum_is_0,
        where_a_mask_selects_rows,
        by_a_mask_where_a_tensor_says_so,
        goes_on,
        asks_first,
        asks_for_truth,
        over_those_found,
        over_those_with_two,
        where_a_tensor_says_so,
        collects,
    ],
)
def test_experts_without_rows_are_left_out_as_in_eager(loop: Callable[..., Tensor]) -> None:
    check(Experts(loop).eval(), *CALLS, dynamic_shapes=ROWS)


@pytest.mark.thorough
@pytest.mark.parametrize("compiler", ["op_by_op", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_saved_program_leaves_them_out_too(compiler: str, tmp_path: Path) -> None:
    for loop in (goes_on, over_those_found, where_a_mask_has_any):
        model = Experts(loop).eval()
        path = tmp_path / f"{loop.__name__}.hot"
        build(model, MANY, compiler=compiler, dynamic_shapes=ROWS).save(path)
        program = hotstart.load(path, model)
        for call in CALLS:
            assert_same(program(*call), model(*call), tolerance=1e-6)


# --- what is refused ------------------------------------------------------------------------------


def counts(x: Tensor) -> tuple[Tensor, int]:
    (rows,) = torch.where(x[:, 0] > 0)
    found = 0
    if rows.numel() > 0:
        found = 1
    return x, found


def adds_to_a_tensor(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        result.add_(1)
    return result


def adds_to_another(x: Tensor) -> Tensor:
    (rows,), (others,) = torch.where(x[:, 0] > 0), torch.where(x[:, 1] > 0)
    result = x.clone()
    if rows.numel() > 0:
        result[others] = 1
    return result


def adds_to_a_part(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    part = result[:, 1]
    if rows.numel() > 0:
        part.mul_(2)
    return result


def appends(x: Tensor) -> list[Tensor]:
    (rows,) = torch.where(x[:, 0] > 0)
    found = [x]
    if rows.numel() > 0:
        found.append(x[rows])
    return found


def appends_elsewhere(x: Tensor) -> list[Tensor]:
    (rows,) = torch.where(x[:, 0] > 0)
    found = [x]

    def keep(y: Tensor) -> None:
        if y.numel() > 0:
            found.append(y)

    keep(x[rows])
    return found


def draws(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        result[rows] += torch.rand(1)
    return result + torch.rand(1)


def takes_a_maximum(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        result[rows] = x[rows].max(0).values
    return result


def checks(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        torch._check(rows.numel() > 1)
        result[rows] = 1
    return result


def checks_contents(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        torch._assert_async((x > 0).any())
        result[rows] = 1
    return result


def enters_autocast(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        with torch.autocast("cpu", torch.bfloat16):
            result[rows] = (x[rows] @ x[rows].T @ x[rows]).float()
    return result


def reads_a_number(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        most = int(x[rows].sum())
        torch._check(most >= 0)
        result[rows] = torch.zeros(most).sum()
    return result


def returns(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    if rows.numel() > 0:
        return x
    return x * 2


def leaves_a_loop(x: Tensor) -> Tensor:
    result = x.clone()
    for column in range(4):
        (rows,) = torch.where(x[:, column] > 0)
        if rows.numel() == 0:
            break
        result[rows] += column
    return result


def leaves_a_loop_over_those_found(x: Tensor) -> Tensor:
    result = x.clone()
    for column in (x.sum(0) > 0).nonzero():
        (rows,) = torch.where(x[:, column[0]] > 0)
        result[rows] += 1
        break
    return result


def counts_those_found(x: Tensor) -> tuple[Tensor, int]:
    many = 0
    for _ in (x.sum(0) > 0).nonzero():
        many += 1
    return x, many


def takes_the_next(x: Tensor) -> Tensor:
    def columns() -> Iterator[int]:
        yield from range(4)

    following = columns()
    result = x.clone()
    (rows,) = torch.where(x[:, 0] > 0)
    if rows.numel() > 0:
        next(following)
    return result + next(following)


def takes_the_next_of_a_range(x: Tensor) -> Tensor:
    following = iter(range(4))
    (rows,) = torch.where(x[:, 0] > 0)
    if rows.numel() > 0:
        next(following)
    return x + next(following)


def asks_for_more_than_one(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 1:
        result[rows] = 1
    return result


def otherwise(x: Tensor) -> Tensor:
    (rows,) = torch.where(x[:, 0] > 0)
    result = x.clone()
    if rows.numel() > 0:
        result[rows] = 1
    else:
        result += 1
    return result


def writes_by_another_mask(x: Tensor) -> Tensor:
    result = x.clone()
    if len(x[x[:, 0] > 0]) > 0:
        result[x[:, 0] > -1] = 1
    return result


def writes_by_a_mask_that_was_changed(x: Tensor) -> Tensor:
    mask, result = x[:, 0] > 0, x.clone()
    rows = x[mask]
    mask |= x[:, 0] > -1
    if len(rows) > 0:
        result[mask] = 1
    return result


def changes_a_mask(x: Tensor) -> Tensor:
    mask, result = x[:, 0] > 0, x.clone()
    if mask.any():
        mask |= x[:, 0] > -1
        result[mask] = 1
    return result


def works_where_a_sum_is_0(x: Tensor) -> Tensor:
    mask, result = x[:, 0] > 0, x.clone()
    if mask.sum() == 0:
        result[mask] = 1
        result += 1
    return result


@pytest.mark.parametrize(
    "function",
    [
        writes_by_another_mask,
        writes_by_a_mask_that_was_changed,
        changes_a_mask,
        works_where_a_sum_is_0,
        counts,
        adds_to_a_tensor,
        adds_to_another,
        adds_to_a_part,
        appends,
        appends_elsewhere,
        draws,
        takes_a_maximum,
        checks,
        checks_contents,
        enters_autocast,
        reads_a_number,
        returns,
        leaves_a_loop,
        takes_the_next,
        takes_the_next_of_a_range,
        asks_for_more_than_one,
        otherwise,
    ],
)
def test_what_does_something_is_compiled_with_and_without(function: Callable[..., Any]) -> None:
    calls = CALLS if function is not takes_a_maximum else CALLS[:1]
    program = check(function, *calls, dynamic_shapes=ROWS)
    assert any("branches yes" in variant.name for variant in program.report.variants)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("function", [leaves_a_loop_over_those_found, counts_those_found])
def test_loops_over_rows_that_are_found_are_refused_and_torch_cond_is_named(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(hotstart.CaptureError, match=r"torch\.cond") as caught:
        build(function, MANY, dynamic_shapes=ROWS)
    assert Path(__file__).name in str(caught.value)


class Keeps(nn.Module):
    """A module that keeps something of a call where there is something."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        (rows,) = torch.where(x[:, 0] > 0)
        if rows.numel() > 0:
            self.keep(x[rows])
        return x * 2


class KeepsInAnAttribute(Keeps):
    def keep(self, found: Tensor) -> None:
        self.last = found.sum(0)


class KeepsInAList(Keeps):
    def keep(self, found: Tensor) -> None:
        self.seen.append(found)


def test_what_a_module_keeps_is_something() -> None:
    check(KeepsInAnAttribute(), *CALLS, dynamic_shapes=ROWS)
    with pytest.raises(hotstart.CaptureError, match=r"outlives the call \(seen\)"):
        build(KeepsInAList(), MANY, dynamic_shapes=ROWS)


def test_the_error_says_what_is_done_and_where() -> None:
    def often(x: Tensor) -> Tensor:
        for number in range(5):
            x = adds_to_another(x - number)
        return x

    with pytest.raises(hotstart.CaptureError) as caught:
        build(often, MANY, dynamic_shapes=ROWS)
    assert "if rows.numel() > 0" in str(caught.value)
    assert "it writes to a tensor that is not empty at " in str(caught.value)
    assert "result[others] = 1" in str(caught.value)


def test_a_branch_on_a_tensor_of_constants_is_decided_at_the_build() -> None:
    def decides(x: Tensor) -> Tensor:
        return x * 2 if torch.tensor([3])[0] == 3 else x

    check(decides, *CALLS, dynamic_shapes=ROWS)
