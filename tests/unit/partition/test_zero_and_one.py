"""Sizes 0 and 1 are tried for each axis, and for axes that one operator meets."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from hotstart import Dim
from hotstart.partition.zero_and_one import specials
from hotstart.records.shapes import Interval
from tests.capturing import planned

NAMES = "abcdef"


def chain(*xs: torch.Tensor) -> torch.Tensor:
    """No operator meets more than two axes."""
    return torch.stack([(x[:, None] * y).sum() for x, y in itertools.pairwise(xs)])


def one_tensor(*xs: torch.Tensor) -> torch.Tensor:
    """An operator meets all axes."""
    return torch.einsum(",".join(NAMES[: len(xs)]) + "->" + NAMES[: len(xs)], *xs)


@pytest.mark.parametrize(
    ("model", "axes", "count"), [(chain, 2, 8), (chain, 6, 32), (one_tensor, 3, 26)]
)
def test_axes_that_no_operator_meets_together_are_not_combined(
    model: Callable[..., torch.Tensor], axes: int, count: int
) -> None:
    dims = [{0: Dim(name, max=20)} for name in NAMES[:axes]]
    xs = [torch.randn(5 + number) for number in range(axes)]
    plan = planned(model, *xs, split_on=[], dynamic={"xs": dims})
    (piece,) = plan.pieces
    found = specials(plan.graph, piece, dict.fromkeys(NAMES, Interval(0, 20)))
    assert len(found) == len({tuple(sorted(each.items())) for each in found}) == count
    assert [len(each) for each in found] == sorted(len(each) for each in found)


def test_only_sizes_that_are_declared_are_tried() -> None:
    plan = planned(one_tensor, torch.randn(5), dynamic={"xs": [{0: Dim("a", max=9)}]})
    assert specials(plan.graph, plan.pieces[0], {"a": Interval(1, 9)}) == [{"a": 1}]
