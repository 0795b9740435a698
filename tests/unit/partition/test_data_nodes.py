from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hotstart import Dim
from hotstart.capture.captured import Captured
from hotstart.errors import CaptureError
from hotstart.partition.cut import cut
from hotstart.partition.data_sizes import NumberSizes
from tests import capturing

X = torch.randn(6, 4)
PARTS = torch.tensor([1, 2, 3])
ROWS = {"x": {0: Dim("rows", max=64)}}


def captured(function: Callable[..., Any], *args: Any, dynamic: Any) -> Captured:
    graph, _ = capturing.captured(function, *args, dynamic=dynamic)
    return graph


def sums_parts(x: Tensor, n: Tensor) -> Tensor:
    first, second, third = torch.split(x, n.tolist())
    return first.sum() + second.sum() + third.sum()


def test_values_of_numbers_meet_all_checks() -> None:
    traced = captured(sums_parts, X, PARTS, dynamic={**ROWS, "n": None})
    sizes = NumberSizes(traced).at({"rows": 6})
    assert sizes is not None
    numbers = [sizes[number.name] for number in traced.numbers]
    assert len(numbers) == 3
    assert sum(numbers) == 6
    assert min(numbers) >= 0


def test_given_values_are_kept_and_there_are_none_where_they_contradict_a_check() -> None:
    finder = NumberSizes(captured(sums_parts, X, PARTS, dynamic={**ROWS, "n": None}))
    zero = finder.at({"rows": 6, "number_0": 0, "number_1": 0})
    assert zero is not None
    assert zero["number_2"] == 6
    assert finder.at({"rows": 6, "number_0": 7}) is None


def test_numbers_have_names_that_no_axis_has() -> None:
    rows = {"x": {0: Dim("number_0", max=64)}}
    traced = captured(lambda x: x[x[:, 0] > 0], X, dynamic=rows)
    assert [number.name for number in traced.numbers] == ["number_1"]


def selects(x: Tensor) -> Tensor:
    return x[x[:, 0] > 0] * 2


def reduces(x: Tensor) -> Tensor:
    return x[x[:, 0] > 0].max(dim=0).values


def means(x: Tensor) -> Tensor:
    return x[x[:, 0] > 0].mean(dim=0)


def scales(x: Tensor) -> Tensor:
    return x.sin() * x.sum().item()


@pytest.mark.parametrize(
    ("function", "compiled"),
    [
        (selects, ["getitem", "gt", "mul"]),
        (reduces, ["getitem", "gt"]),  # eager raises where nothing is selected
        (means, ["getitem", "gt", "mean"]),
        (scales, ["sin", "sum_1"]),
    ],
)
def test_what_makes_or_cannot_do_with_every_number_is_called_as_it_is(
    function: Callable[..., Any], compiled: list[str]
) -> None:
    graph, runs = cut(captured(function, X, dynamic=ROWS), "auto", {"rows": 6})
    names = sorted(node.name for run in runs if not run.inlined for node in run.nodes)
    assert names == compiled
    assert graph.numbers


def test_an_operator_that_gives_another_shape_for_one_is_refused() -> None:
    traced = captured(lambda x: x[x[:, 0] > 0].squeeze(), X, dynamic=ROWS)
    with pytest.raises(CaptureError, match=r"(?s)another shape.*expected: \[\(1, 4\)\]"):
        cut(traced, "auto", {"rows": 6})


def test_a_shape_that_a_check_excludes_is_not_tried() -> None:
    def squeezes(x: Tensor) -> Tensor:
        found = x[x[:, 0] > 0]
        torch._check(found.shape[0] > 1)
        return found.squeeze()

    _, runs = cut(captured(squeezes, X, dynamic=ROWS), "auto", {"rows": 6})
    assert not runs[-1].inlined
