"""Which object an argument is: a program sees what is in it, so forward cannot ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.integration.contents import Layer, R, State
from tests.versions import compares_lists

EAGER = hotstart.Options(compiler="op_by_op")
NAMED = Layer(R(1))


class HoldsAMode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mode = NAMED

    def forward(self, x: Tensor, mode: Layer) -> Tensor:
        return x * 2 if mode is self.mode else x


LISTED = [R(2)]
SETTINGS = State(R(1))
TABLE = {"mode": NAMED}
ASKS: dict[str, tuple[Callable[..., Tensor], Any]] = {
    "is": (lambda x, mode: x * 2 if mode is NAMED else x, NAMED),
    "is not the one of the build": (
        lambda x, mode: x * 2 if mode is NAMED else x,
        Layer(R(1)),
    ),
    "equality without a meaning": (lambda x, mode: x * 2 if mode == NAMED else x, NAMED),
    "in a list": (lambda x, mode: x * 2 if mode in [NAMED] else x, NAMED),
    "an entry of a dict": (lambda x, mode: x * 2 if TABLE["mode"] is mode else x, NAMED),
    "a dataclass": (lambda x, mode: x * 2 if mode is SETTINGS else x, SETTINGS),
    "what the model holds": (HoldsAMode(), Layer(R(1))),
}


@pytest.mark.parametrize(("ask", "mode"), ASKS.values(), ids=ASKS)
def test_which_object_an_argument_is_cannot_be_asked(ask: Callable[..., Tensor], mode: Any) -> None:
    with pytest.raises(hotstart.CaptureError, match="knows as an argument only"):
        hotstart.compile(ask, (R(2), mode), options=EAGER)


@compares_lists
def test_which_list_an_argument_is_cannot_be_asked() -> None:
    with pytest.raises(hotstart.CaptureError, match="knows as an argument only"):
        hotstart.compile(
            lambda x, mode: x * 2 if mode is LISTED else x + mode[0], (R(2), LISTED), options=EAGER
        )


@compares_lists
def test_whether_two_arguments_are_one_object_cannot_be_asked() -> None:
    with pytest.raises(hotstart.CaptureError, match="knows as an argument only"):
        hotstart.compile(
            lambda x, a, b: x * 2 if a is b else x, (R(2), LISTED, LISTED), options=EAGER
        )


def test_an_argument_may_be_compared_with_none_and_by_its_contents() -> None:
    def forward(x: Tensor, state: State | None) -> Tensor:
        return x if state is None or [state.steps] == [3] else x * state.h

    same_as_eager = hotstart.compile(forward, (R(1), SETTINGS), options=EAGER)
    x = R(1)
    assert torch.equal(same_as_eager(x, SETTINGS), forward(x, SETTINGS))


class HoldsAWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(R(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x is self.weight else x + self.weight


TENSORS: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...]]] = {
    "is": (lambda x, y: x if x is y else x + y, (R(2), R(2))),
    "is not": (lambda x, y: x + y if x is not y else x, (R(2), R(2))),
    "in a list": (lambda x: x[0] if x[0] is x[1] else x[0] + x[1], ([R(2), R(2)],)),
    "a weight": (HoldsAWeight(), (R(2),)),
}


@pytest.mark.parametrize(("ask", "args"), TENSORS.values(), ids=TENSORS)
def test_which_tensor_an_argument_is_cannot_be_asked(
    ask: Callable[..., Tensor], args: tuple[Any, ...]
) -> None:
    with pytest.raises(hotstart.CaptureError, match="knows as an argument only"):
        hotstart.compile(ask, args, options=EAGER)


def test_one_tensor_that_is_passed_twice_cannot_be_told_either() -> None:
    x = R(2)
    with pytest.raises(hotstart.CaptureError, match="knows as an argument only"):
        hotstart.compile(lambda x, y: x if x is y else x + y, (x, x), options=EAGER)


def test_what_is_the_same_whichever_it_is_may_be_asked() -> None:
    model = nn.MultiheadAttention(8, 2, batch_first=True).eval()  # asks whether keys are queries
    q, k = R(1, 3, 8), R(1, 3, 8)
    with torch.no_grad():
        program = hotstart.compile(model, (q, k, k), options=EAGER)
        for args in ((q, k, k), (q, q, q)):
            torch.testing.assert_close(program(*args), model(*args))

    def forward(x: Tensor, y: Tensor | None = None) -> Tensor:
        return x if x is x and y is None else x * 2

    one = hotstart.compile(forward, (q,), options=EAGER)
    assert torch.equal(one(k), k)
