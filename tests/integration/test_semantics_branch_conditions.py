"""Conditions on what tensors hold, and what comes before them, are as in eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import build, check

ROWS = {"x": {0: Dim("rows", min=1, max=16)}}

torch.manual_seed(0)
SOME = torch.full((7, 4), -0.5)
SOME[0, :3] = 1.0
CALLS = tuple(
    (torch.randn(rows, 4) * scale,)
    for rows, scale in ((3, 1.0), (5, 9.0), (1, 0.0), (16, 0.1), (4, -2.0))
)
CALLS = (*CALLS, (-torch.rand(3, 4),), (SOME,))


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[None]:
    """Operators that are written in Python, one with a name that torch has too."""
    library = torch.library.Library("hotstart_branches", "DEF")
    for name, compute in (("noisy", lambda x: x + torch.rand_like(x)), ("max", lambda x: -x.max())):
        library.define(f"{name}(Tensor x) -> Tensor")
        library.impl(name, compute, "CompositeExplicitAutograd")
    torch.library.register_fake("hotstart_branches::noisy", torch.empty_like, lib=library)
    torch.library.register_fake("hotstart_branches::max", lambda x: x.new_empty(()), lib=library)
    yield
    library._destroy()


# --- numbers are Python's -------------------------------------------------------------------------


def of_a_product(x: Tensor) -> Tensor:
    count = int((x > 0).sum())
    return x * 2 if count * 0.1 > 0.3 else x  # 3 * 0.1 is more than 0.3


def of_a_share(x: Tensor) -> Tensor:
    return x * 2 if (x > 0).sum().item() / x.numel() > 0.5 else x


def of_a_bound(x: Tensor) -> Tensor:
    return x * 2 if 0 < abs(x.max().item()) < 2 else x


def is_true(x: Tensor) -> Tensor:
    x = x * 2 if bool(x.max() > 1) is True else x
    return x + 1 if False is not bool(x.min() < -1) else x


def whole(x: Tensor) -> Tensor:
    total = int(x.sum())
    return x if total < 0 else torch.zeros(total) + x[0, 0]


@pytest.mark.parametrize("function", [of_a_product, of_a_share, of_a_bound, is_true, whole])
def test_numbers_are_computed_as_python_does(function: Callable[..., Any]) -> None:
    check(function, *CALLS, dynamic_shapes=ROWS)


def test_whole_numbers_have_any_size() -> None:
    def large(x: Tensor) -> Tensor:
        return x * 2 if x.max().item() * 4 > 0 else x

    check(large, (torch.tensor([[2**62, 1]]),), (torch.tensor([[-5, -7]]),))


# --- checks of one side ---------------------------------------------------------------------------


def takes_the_last(x: Tensor) -> Tensor:
    found = x[x[:, 0] > 0]
    return torch.zeros(4) if found.shape[0] == 0 else found[-1]


def one_less(x: Tensor) -> Tensor:
    count = int((x > 0).sum())
    return x.sum(0) if count == 0 else torch.zeros(count - 1) + x[0, 0]


def unfolds(x: Tensor) -> Tensor:
    found = x[x[:, 0] > 0]
    return found if found.numel() < 3 else found.unfold(1, 2, 1)


def adds_if_as_many(x: Tensor) -> Tensor:
    one, other = x[x[:, 0] > 0], x[x[:, 1] > 0]
    return x if one.numel() != other.numel() else one + other


def takes_as_many(x: Tensor) -> Tensor:
    count = int((x[:, 0] > 0).sum())
    return x if count > x.shape[0] or count == 0 else x.topk(count, 0)[0]


class Detects(nn.Module):
    """Keeps what a layer finds, if it finds anything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        kept = (y[:, 0] > 0).nonzero()[:, 0]
        if kept.numel() == 0:
            return y
        return y[kept].max(0)[0] - y[kept[0]]


@pytest.mark.parametrize(
    "function",
    [takes_the_last, one_less, unfolds, adds_if_as_many, takes_as_many, Detects().eval()],
)
def test_what_one_side_needs_is_checked_on_that_side(function: Callable[..., Any]) -> None:
    check(function, *CALLS, tolerance=1e-6, dynamic_shapes=ROWS)


# --- writes that no version tells of --------------------------------------------------------------


def asks_again(x: Tensor) -> Tensor:
    y = x.abs() + 1
    if y.max() > 0:
        x = x + 1
    torch._foreach_mul_([y], -1.0)
    return x * 2 if y.max() > 0 else x


def asks_once(x: Tensor) -> Tensor:
    y = x.abs() + 1
    torch._foreach_neg_([y])
    return x * 2 if y.max() > 0 else x


def counts_one_more(x: Tensor) -> Tensor:
    rows, again = torch.tensor(x.shape[0]), torch.tensor(x.shape[0])
    rows.data.add_(1)
    torch._foreach_add_([again], 2)
    return torch.zeros(int(rows), int(again))


@pytest.mark.parametrize("function", [asks_again, asks_once, counts_one_more])
def test_what_is_written_is_read_afterwards(function: Callable[..., Any]) -> None:
    check(function, *CALLS, dynamic_shapes=ROWS)


def test_branches_stay_in_order() -> None:
    def far_and_near(x: Tensor, c: Tensor) -> Tensor:
        y = x
        for _ in range(40):
            y = y.sin() + x * 0.1
        if y.sum() > 0:
            x = x + 1
        return x * 2 if c.max() > 1 else x

    flags = (0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0)
    calls = [(x, torch.full((3,), flag)) for (x,), flag in zip(CALLS, flags, strict=True)]
    check(far_and_near, *calls, dynamic_shapes={**ROWS, "c": None})


# --- what is not done twice -----------------------------------------------------------------------


def writes_beyond_the_example(x: Tensor) -> Tensor:
    x[3:].add_(1)
    return x * 2 if x.max() > 1 else x


def calls_python(x: Tensor) -> Tensor:
    y = torch.ops.hotstart_branches.noisy(x)
    return y * 2 if y.max() > 1 else y


def calls_another_max(x: Tensor) -> Tensor:
    y = x.abs() + 1
    if y.max() > 0:
        x = x + 1
    return x * 2 if torch.ops.hotstart_branches.max(y) > 0 else x


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (writes_beyond_the_example, "it writes to a tensor"),
        (calls_python, "it calls an operator that is written in Python"),
        (calls_another_max, "it calls an operator that is written in Python"),
    ],
)
def test_what_may_show_is_not_done_twice(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=f"must not be done twice: {why}"):
        build(function, *CALLS[0], dynamic_shapes=ROWS)
