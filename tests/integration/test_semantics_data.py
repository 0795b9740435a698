"""Sizes and numbers that depend on the contents of tensors: see docs/semantics.md."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, both, build, check

ROWS = {"x": {0: Dim("rows", min=1, max=64)}}

torch.manual_seed(0)
MANY = torch.randn(9, 4)
NONE = -torch.rand(5, 4) - 0.1
ONE = torch.cat([NONE, torch.rand(1, 4) + 0.1])
ALL = torch.rand(7, 4) + 0.1
CALLS = ((MANY,), (NONE,), (ONE,), (ALL,))
"""Calls in which many rows, none, one and all are selected; the first is the example."""


def numbers(*values: int) -> Tensor:
    return torch.tensor(values)


# --- sizes of results -----------------------------------------------------------------------------


def by_mask(x: Tensor) -> Tensor:
    return x[x[:, 0] > 0] * 2


def in_two_ways(x: Tensor) -> Tensor:
    return x[x[:, 0] > 0][:, None] * x[x[:, 1] > 0][None]


def by_number_of_rows(x: Tensor) -> tuple[Tensor, Tensor, int]:
    found = x.clamp(min=0).nonzero()
    return torch.zeros(found.shape[0]) + 1, found, found.shape[0]


def by_position(x: Tensor) -> Tensor:
    rows, columns = torch.where(x > 0)
    return x[rows, columns] + rows - columns


def selected(x: Tensor) -> Tensor:
    return torch.masked_select(x, x > 0).sum()


def distinct(x: Tensor) -> tuple[Tensor, ...]:
    return torch.unique((x * 2).round(), return_inverse=True, return_counts=True)


def one_after_another(x: Tensor) -> Tensor:
    return torch.unique_consecutive((x[:, 0] > 0).long()) + 1


def counted(x: Tensor) -> Tensor:
    return torch.bincount((x[:, 0].abs() * 5).long()) * 2


def best_of_few(x: Tensor) -> Tensor:
    order = x[:, 0].sort(descending=True).indices
    kept = x[order][x[order][:, 0] > 0]
    return kept[: min(kept.shape[0], 3)]


def attends(x: Tensor) -> Tensor:
    y = x[x[:, 0] > 0]
    return (y @ y.T).softmax(-1) @ y


def in_a_list(x: Tensor) -> list[Tensor]:
    return [column[column > 0] for column in x.unbind(1)]


def padded(x: Tensor) -> Tensor:
    return nn.functional.pad(x, (0, int((x[:, 0] > 0).sum()))) * 2


@pytest.mark.parametrize(
    "function",
    [
        by_mask,
        in_two_ways,
        by_number_of_rows,
        by_position,
        selected,
        distinct,
        one_after_another,
        counted,
        best_of_few,
        attends,
        in_a_list,
        padded,
    ],
)
def test_results_have_the_sizes_that_eager_gives_them(function: Callable[..., Any]) -> None:
    check(function, *CALLS, dynamic_shapes=ROWS)


class Experts(nn.Module):
    """A mixture of experts that gathers the rows of each."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[:, :3].argmax(1)
        result = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            (rows,) = torch.where(chosen == number)
            result.index_add_(0, rows, torch.relu(expert(x[rows])))
        return result


@both
def test_experts_take_the_rows_that_are_theirs(compiler: str) -> None:
    program = check(
        Experts().eval(),
        *CALLS,
        (MANY * 0,),
        compiler=compiler,
        tolerance=1e-6,
        dynamic_shapes=ROWS,
    )
    assert not program.report.op_by_op


class Detects(nn.Module):
    """Boxes with scores, of which those above a threshold are kept, best first."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.box = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores, labels = self.score(x).softmax(-1).max(-1)
        boxes = self.box(x).sigmoid()
        keep = (scores > 0.4) & (x[:, 0] > 0)
        scores, order = scores[keep].sort(descending=True)
        centre, size = boxes[keep][order].split(2, dim=-1)
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
        return {"scores": scores, "labels": labels[keep][order], "boxes": corners}


@both
def test_detections_are_those_of_eager_and_none_where_there_are_none(compiler: str) -> None:
    model = Detects().eval()
    program = check(model, *CALLS, compiler=compiler, tolerance=1e-6, dynamic_shapes=ROWS)
    assert program(NONE)["boxes"].shape == (0, 4)
    assert not program.report.op_by_op


@pytest.mark.thorough
def test_what_inductor_does_not_compile_for_data_runs_op_by_op() -> None:
    def picks(x: Tensor, mask: Tensor) -> Tensor:
        y, found = x * 2, mask.nonzero()[:, 0]
        return torch.zeros_like(y).index_put((found,), torch.relu(y[found]))

    rows = Dim("rows", min=0, max=64)
    empty = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool))
    calls = [(MANY, MANY[:, 0] > 0), (NONE, NONE[:, 0] > 0), empty]
    shapes = {"x": {0: rows}, "mask": {0: rows}}
    program = check(picks, *calls, compiler="inductor", tolerance=1e-6, dynamic_shapes=shapes)
    assert any("Inductor raises" in reason for _, reason in program.report.op_by_op)


# --- numbers --------------------------------------------------------------------------------------


def up_to(x: Tensor, n: Tensor) -> Tensor:
    return x[: n.max().item()] + 1


def counts_up(x: Tensor, n: Tensor) -> Tensor:
    return torch.arange(n.max().item()) * 2 + x.shape[0]


def repeats(x: Tensor, n: Tensor) -> Tensor:
    return torch.repeat_interleave(x, n, dim=0) * 2


def splits(x: Tensor, n: Tensor) -> list[Tensor]:
    return [part * 2 for part in torch.split(x, n.tolist())]


def tells(x: Tensor, n: Tensor) -> tuple[Any, ...]:
    return x, n.max().item(), n.tolist(), bool((x > 0).any()), x.sum().item(), n.sum().item() * 0.1


def scales(x: Tensor, n: Tensor) -> Tensor:
    most = x.abs().max().item()
    return x / most + (most * 0.1 + most * 0.7) + n.sum().item()


def switches(x: Tensor, n: Tensor) -> Tensor:
    return x * (n > 0).all().item()


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (up_to, [numbers(3, 2), numbers(0, 0), numbers(1, 0), numbers(99, 1), numbers(-2, -3)]),
        (counts_up, [numbers(3, 2), numbers(0, 0), numbers(1, 0)]),
        (tells, [numbers(3, 2), numbers(0, 0), numbers(-1, -7)]),
        (scales, [numbers(3, 2), numbers(0, 0), numbers(-1, -7)]),
        (switches, [numbers(3, 2), numbers(0, 1)]),
    ],
)
def test_numbers_are_read_in_every_call(function: Callable[..., Any], given: list[Tensor]) -> None:
    check(function, *((MANY, n) for n in given), dynamic_shapes={**ROWS, "n": None})


def lists(x: Tensor, n: Tensor) -> tuple[Any, ...]:
    return (
        x * 2,
        x[0].tolist(),
        (x[0] > 0).tolist(),
        x[0].reshape(2, 2).tolist(),
        max(x[0].tolist()),
    )


def test_floating_point_numbers_and_booleans_come_in_lists() -> None:
    check(lists, *((x, numbers(1)) for (x,) in CALLS), dynamic_shapes={**ROWS, "n": None})
    with pytest.raises(hotstart.CaptureError, match=r"call tolist\(\) outside"):
        build(lambda x: (x, x[:, 0].tolist()), MANY, dynamic_shapes=ROWS)


def test_operators_read_numbers_from_tensors() -> None:
    def f(x: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        number, mean = n[0], x.mean()
        return (
            torch.full_like(x, mean),
            torch.full_like(x, fill_value=number, dtype=torch.int32),
            x.new_full((2, 3), mean > 0),
            x.roll(number, 1) + torch.roll(x, shifts=(number, 1), dims=(0, 1)),
            x.tril(number),
            torch.triu(x, diagonal=number),
            x.select(1, number),
        )

    given = [(x, numbers(at)) for at, (x,) in enumerate(CALLS)]
    check(f, *given, dynamic_shapes={**ROWS, "n": None})


def test_operators_read_sizes_from_tensors() -> None:
    def f(x: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        number = n[0]
        return (
            torch.zeros(2, number) + torch.ones((2, number)),
            x.new_zeros(number, 3),
            torch.arange(1, number + 2) * number,
            x[:, :1].expand(-1, number),
            x.repeat(number, 1) - x.tile(1, number).reshape(-1, 4),
            torch.broadcast_to(x[None], (number, *x.shape)),
            x.narrow(1, number - 1, 1),
            torch.linspace(0, 1, number),
            torch.hann_window(number),
            torch.nn.functional.one_hot(torch.zeros(2, dtype=torch.int64), number),
            torch.nn.functional.one_hot(n),
        )

    check(f, *((MANY, numbers(at)) for at in (2, 1, 3)), dynamic_shapes={**ROWS, "n": None})


def test_a_size_from_a_tensor_leaves_the_rest_to_view() -> None:
    def f(x: Tensor, n: Tensor) -> Tensor:
        return x.view(n, -1) * 2

    x = torch.randn(4, 6)
    program = check(f, *((x, torch.tensor(rows)) for rows in (2, 1, 8, 24)))
    for rows in (5, 0):
        with pytest.raises(RuntimeError):
            program(x, torch.tensor(rows))


def reads(x: Tensor, n: Tensor) -> tuple[Tensor, ...]:
    return (
        x[n] * 2,
        x[:, n] + x[n - 1, ..., n],
        x[None, n, 1:, None],
        x[[0, 2], n] + x[torch.tensor([3, 0]), n],
        x[x[:, 0] > 0, n],
        x[n - 1 : 3, n.to(torch.int32)],
        x[x[:, 1].argmax(), x[0].argmin()],
        x[n.item(), :2] + x[x.shape[0] - 1, n.item()],
    )


def writes(x: Tensor, n: Tensor) -> Tensor:
    y = x.clone()
    y[:, n] = torch.arange(4.0)
    y[n, n] = 7
    y[n, 1:3] += y[n - 1, :2]
    y[..., n.item()] *= 2
    return y


def leaves_written(x: Tensor, n: Tensor) -> Tensor:
    x[n] = x[n] + 1
    return x[:, n]


@both
@pytest.mark.parametrize("function", [reads, writes, leaves_written])
def test_tensors_are_indexed_by_numbers_of_tensors(
    function: Callable[..., Any], compiler: str
) -> None:
    x = torch.randn(4, 4)
    given = [(x, torch.tensor(number)) for number in (2, 1, 3, 0, -1)]
    program = check(function, *given, compiler=compiler, tolerance=1e-6)
    for number in (4, -5):
        with pytest.raises((IndexError, RuntimeError)):
            program(x.clone(), torch.tensor(number))


@pytest.mark.parametrize("function", [repeats, splits])
def test_sizes_come_out_of_tensors(function: Callable[..., Any]) -> None:
    given = (numbers(2, 1, 0, 1, 1), numbers(0, 0, 0, 0, 5), numbers(1, 1, 1, 1, 1))
    check(function, *((MANY[:5], n) for n in given))


def test_a_size_that_is_negative_or_does_not_add_up_raises_as_in_eager() -> None:
    for function, wrong in (
        (splits, numbers(-1, 6)),
        (splits, numbers(2, 2)),
        (counts_up, numbers(-2, -2)),
    ):
        program = build(function, MANY[:5], numbers(2, 3))
        with pytest.raises(RuntimeError):
            function(MANY[:5], wrong)
        with pytest.raises(RuntimeError, match="as the model needs it"):
            program(MANY[:5], wrong)


def test_an_operator_that_takes_no_empty_tensor_raises_as_in_eager() -> None:
    def largest(x: Tensor) -> Tensor:
        return x[x[:, 0] > 0].max(dim=0).values

    program = check(largest, (MANY,), (ONE,), dynamic_shapes=ROWS)
    with pytest.raises(IndexError, match="non-zero size"):
        program(NONE)


def test_a_size_that_is_left_to_reshape_is_known_unless_there_is_nothing() -> None:
    def rows(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x[x[:, 0] > 0]
        return y.reshape(-1, 2), y.reshape(y.shape[0], -1)

    program = check(rows, (MANY,), (ONE,), (ALL,), dynamic_shapes=ROWS)
    with pytest.raises(RuntimeError):
        rows(NONE)
    with pytest.raises(RuntimeError, match="number_0 != 0, as the model needs it"):
        program(NONE)


def test_sizes_that_have_to_agree_are_compared_in_every_call() -> None:
    def adds(x: Tensor) -> Tensor:
        return x[x[:, 0] > 0] + x[x[:, 1] > 0]

    even = torch.tensor([[1.0, 1, 0, 0], [1, -1, 0, 0], [-1, 1, 0, 0]])
    program = check(adds, (even,), (NONE,), (ALL,), dynamic_shapes=ROWS)
    with pytest.raises(RuntimeError, match="number_0 == number_1"):
        program(torch.tensor([[1.0, -1, 0, 0], [1, -1, 0, 0], [-1, -1, 0, 0]]))


# --- branches ------------------------------------------------------------------------------


def branches(x: Tensor) -> Tensor:
    if x[x > 0].shape[0] > 3:
        return x * 2
    return x


def takes_the_first_that_is_false(x: Tensor) -> tuple[Tensor, Any]:
    nothing, no = 0, False
    return x, x[x > 0].shape[0] > 3 and nothing and no


def asks_a_tensor(x: Tensor) -> Tensor:
    return x * 2 if (x > 0).any() else x


@pytest.mark.parametrize("function", [branches, asks_a_tensor, takes_the_first_that_is_false])
def test_a_branch_that_depends_on_data_has_both_sides(function: Callable[..., Any]) -> None:
    check(function, *CALLS, dynamic_shapes=ROWS)


class Prunes(nn.Module):
    """Attention that drops rows, as models of transformers call it."""

    causal = False

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        causal = self.causal
        causal = x.shape[0] > 1 and mask is None and causal
        found = nn.functional.scaled_dot_product_attention(x, x, x, mask, is_causal=causal)
        return found * (2 if causal else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x[x[:, 0] > 0][:, None], None)


def test_a_condition_on_a_number_that_decides_nothing_is_no_branch() -> None:
    check(Prunes(), *CALLS, dynamic_shapes=ROWS)
    causal = Prunes()
    causal.causal = True
    check(causal, *CALLS, dynamic_shapes=ROWS)


@both
def test_torch_cond_decides_by_a_number_that_depends_on_data(compiler: str) -> None:
    def decides(x: Tensor) -> Tensor:
        y = x[x[:, 0] > 0]
        return torch.cond(y.shape[0] > 2, lambda y: y.sum(0) * 2, lambda y: y.sum(0) - 1, (y,))

    check(decides, *CALLS, compiler=compiler, tolerance=1e-6, dynamic_shapes=ROWS)


@pytest.mark.thorough
def test_a_variant_whose_pieces_take_a_number_runs_as_python_and_says_why() -> None:
    program = build(Detects().eval(), MANY, compiler="inductor", dynamic_shapes=ROWS)
    ((_, why),) = program.report.not_native
    assert why == "a piece takes number_0, which depends on data"


def test_an_operator_that_drops_dimensions_by_their_size_is_refused() -> None:
    with pytest.raises(hotstart.CaptureError, match=r"squeeze\(1\) in place of squeeze\(\)"):
        build(lambda x: x[x[:, 0] > 0].squeeze(), MANY)


# --- files ----------------------------------------------------------------------------------------


@both
def test_a_saved_program_gives_the_same_sizes(compiler: str, tmp_path: Path) -> None:
    model = Detects().eval()
    path = tmp_path / "model.hot"
    build(model, MANY, compiler=compiler, dynamic_shapes=ROWS).save(path)
    program = hotstart.load(path, model)
    for call in CALLS:
        assert_same(program(*call), model(*call), tolerance=1e-6)


class KeptRows(nn.Module):
    """A cache that is written from a place on, which is a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(16, 4))

    def forward(self, x: Tensor, start: Tensor) -> Tensor:
        at = start.item()
        self.kept[at : at + x.shape[0]] = x * 2
        return self.kept[: at + x.shape[0]] + 1


@both
def test_rows_are_written_from_a_number_on(compiler: str) -> None:
    places = ((4, 2), (1, 0), (9, 7), (1, 15), (3, 0))
    calls = [(torch.randn(n, 4), torch.tensor(at)) for n, at in places]
    shapes = {"x": {0: Dim("rows", min=1, max=9)}}
    program = check(KeptRows().eval(), *calls, compiler=compiler, dynamic_shapes=shapes)
    with pytest.raises(RuntimeError, match="must match the existing size"):
        program(torch.randn(4, 4), torch.tensor(14))


# --- errors that forward raises -------------------------------------------------------------------


def raises_if_any(x: Tensor) -> Tensor:
    if x.isnan().any():
        raise ValueError("nan")
    return x * 2


def raises_unless_all(x: Tensor) -> Tensor:
    with torch.no_grad():
        if (x < 5).all():
            y = x * 2
        else:
            text = f"{x.max().item()} is too large"
            raise ValueError(text)
    return y


def raises_for_a_number(x: Tensor) -> Tensor:
    found = int((x >= 5).sum())
    if found > 0:
        raise ValueError(found)
    return x * 2


def of_distributions(x: Tensor) -> tuple[Tensor, ...]:
    given = torch.distributions.Normal(x, x.exp(), validate_args=True)
    chosen = torch.distributions.Categorical(logits=x, validate_args=True)
    return given.log_prob(x * 2), chosen.log_prob(x.argmax(-1)), chosen.entropy()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (raises_if_any, float("nan")),
        (raises_unless_all, 7.0),
        (raises_for_a_number, 7.0),
        (of_distributions, float("nan")),
    ],
)
def test_an_error_that_forward_raises_is_raised_in_calls(
    function: Callable[..., Any], wrong: float, tmp_path: Path
) -> None:
    program = check(function, *CALLS, dynamic_shapes=ROWS)
    program.save(tmp_path / "raises.hot")
    for each in (program, hotstart.load(tmp_path / "raises.hot", function)):
        with pytest.raises(ValueError, match=r"nan|large|\d"):
            function(torch.full((3, 4), wrong))
        with pytest.raises(RuntimeError, match=r"forward raises an error there|expected number"):
            each(torch.full((3, 4), wrong))


def caught_inside(x: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            y = raises_if_any(x)
    except ValueError:
        y = x * 0
    return y


def caught_by_a_context(x: Tensor) -> Tensor:
    y = x
    with contextlib.suppress(ValueError):
        y = raises_if_any(x)
    return y


def cleared_up_after(x: Tensor) -> Tensor:
    try:
        if x.isnan().any():
            raise ValueError("nan")
    finally:
        y = x + 1
    return y


@pytest.mark.parametrize("function", [caught_inside, caught_by_a_context])
def test_what_forward_does_after_an_error_that_it_catches_is_a_side_of_its_own(
    function: Callable[..., Any],
) -> None:
    check(function, *CALLS, (torch.full((3, 4), float("nan")),), dynamic_shapes=ROWS)


def test_an_error_after_which_forward_clears_up_is_refused() -> None:
    with pytest.raises(hotstart.CaptureError, match="cannot be captured"):
        build(cleared_up_after, MANY, dynamic_shapes=ROWS)
