"""A build leaves no names in modules of the code that it traced, and no fake tensors."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import hotstart
from hotstart import Options


def names() -> set[str]:
    return {*globals(), *vars(nn.modules.linear)}


def modes() -> int:
    gc.collect()
    return sum(type(one) is FakeTensorMode for one in gc.get_objects())


def build(model: Any, compiler: str) -> None:
    options = Options(compiler=compiler)  # type: ignore[arg-type]
    hotstart.compile(model, (torch.zeros(2, 4),), options=options)


def refused(x: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return x.sin()


@pytest.mark.thorough
@pytest.mark.parametrize("compiler", ["op_by_op", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # gc finds modules that warn when asked
def test_builds_leave_no_more_behind_than_one(compiler: str) -> None:
    build(nn.Linear(4, 4), compiler)
    before = modes()
    for _ in range(2):
        build(nn.Linear(4, 4), compiler)
    assert modes() <= before  # caches of torch may let go of those of other tests
    assert not any("__compiled_fn" in name for name in names())


def test_a_trace_that_fails_leaves_no_names() -> None:
    with pytest.raises(hotstart.CaptureError):
        build(refused, "op_by_op")
    assert not any("__compiled_fn" in name for name in names())
