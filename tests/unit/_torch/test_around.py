"""What gets between operators leaves those alone that it has nothing to do with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from hotstart._torch.running.fresh_memory import filled_memory
from hotstart._torch.running.modes import without_assertions
from hotstart._torch.running.widening import in_float64


@pytest.mark.parametrize("mode", [in_float64, partial(filled_memory, 1), without_assertions])
def test_control_flow_runs_inside(
    mode: Callable[[], contextlib.AbstractContextManager[Any]],
) -> None:
    branches = (lambda x: (x + 1,), lambda x: (x - 1,))
    with torch.no_grad(), mode():
        (found,) = torch.ops.higher_order.cond(torch.tensor(True), *branches, (torch.ones(2),))
    assert found.tolist() == [2.0, 2.0]


def test_assertions_about_contents_are_left_out() -> None:
    with without_assertions():
        torch._assert_async(torch.tensor(False))
