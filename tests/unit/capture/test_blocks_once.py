"""A block that repeats another is not traced, and the graph is that of a whole trace."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, Dim
from qualification.captures import differences, traced
from tests.unit.capture.block_models import DIFFERENT, REPEATED, Block, ReadsNumber, Stack


@pytest.mark.parametrize(("make", "repeated"), REPEATED.values(), ids=REPEATED)
def test_equal_blocks_are_traced_once(
    make: Callable[[], nn.Module], repeated: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = compared(make(), caplog)
    assert found == ([], repeated)


@pytest.mark.parametrize("make", DIFFERENT.values(), ids=DIFFERENT)
def test_blocks_that_differ_give_the_graph_of_a_whole_trace(
    make: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    different, _ = compared(make(), caplog)
    assert different == []


def test_a_change_of_an_object_ends_repeating(caplog: pytest.LogCaptureFixture) -> None:
    class Counts(Block):
        def forward(self, x: Tensor) -> Tensor:
            counter["calls"] += 1
            return super().forward(x) * counter["calls"]

    counter = {"calls": 0}
    with pytest.raises(hotstart.CaptureError):  # with either: it outlives the call
        compared(Stack(Counts), caplog)
    assert repeats(caplog) == 0


def test_drawn_numbers_are_refused_as_in_a_whole_trace(caplog: pytest.LogCaptureFixture) -> None:
    class Draws(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * random.random()

    with pytest.raises(hotstart.CaptureError):
        compared(Stack(Draws), caplog)


def test_two_models_are_told_apart() -> None:
    first, second = (traced(make(), given(), "whole") for make in (lambda: Stack(Block), other))
    assert list(differences(first, second)) != []


def other() -> nn.Module:
    return Stack(ReadsNumber)


def test_results_are_those_of_the_model() -> None:
    torch.manual_seed(0)
    model = Stack(Block).eval()
    program = hotstart.compile(
        model,
        given().args,
        dynamic_shapes=given().dynamic_shapes,
        options=hotstart.Options(compiler="op_by_op"),
    )
    for rows in (1, 2, 9):
        x = torch.randn(rows, 8)
        assert torch.equal(program(x), model(x))


def given() -> Call:
    return Call(args=(torch.randn(5, 8),), dynamic_shapes={"x": {0: Dim("rows", min=1, max=9)}})


def compared(model: nn.Module, caplog: pytest.LogCaptureFixture) -> tuple[list[str], int]:
    """What differs from a whole trace, and how many blocks were repeated in each trace."""
    caplog.set_level(logging.DEBUG, "hotstart")
    once = traced(model, given(), "blocks_once")
    found = repeats(caplog)
    return list(differences(once, traced(model, given(), "whole"))), found


def repeats(caplog: pytest.LogCaptureFixture) -> int:
    """How many calls of blocks the first trace repeated."""
    told = [r.args for r in caplog.records if "repeat others" in str(r.msg)]
    assert not [r for r in caplog.records if "for itself: " in r.getMessage()]
    return int(told[0][0]) if told else 0  # type: ignore[index, call-overload]
