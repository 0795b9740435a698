"""A call of a model that writes, reads strides and decides by size is refused with what to do."""

from __future__ import annotations

import collections
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import hotstart
from hotstart import ContractError, Dim
from tests.unit.runtime.refusals import EAGER, Batch, assert_consistent


class Slotted:
    __slots__ = ("ids", "later")

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids


class Changing(nn.Module):
    """Writes to a tensor and to containers, reads strides, and decides by size."""

    def forward(self, x, total, held, kept, slotted, queue, wide, turned):
        total.add_(x.sum(0))
        held["n"] = x * 2
        kept.append(queue[0])
        out = x + slotted.ids
        if wide.shape[0] % 3 == 0:
            out = out * 3
        if wide.is_contiguous():
            out = out + wide.sum()
        return out, torch.view_as_real(turned * 2)


def passed(size: int = 4) -> dict[str, Any]:
    return {
        "x": torch.ones(size, 4),
        "total": torch.ones(4),
        "held": {"n": torch.ones(4), "taps": [torch.ones(2)]},
        "kept": [torch.ones(2)],
        "slotted": Slotted(torch.ones(4)),
        "queue": collections.deque([torch.ones(4)]),
        "wide": torch.ones(2, 3),
        "turned": torch.ones(2, dtype=torch.complex64),
    }


@pytest.fixture(scope="module")
def changing() -> hotstart.Program:
    dims = {"x": {0: Dim("n", ranges=[], sizes=[2, 4])}, "wide": {0: Dim("m", min=2, max=8)}}
    return hotstart.compile(Changing(), (), passed(), dynamic_shapes=dims, options=EAGER)


def later(slotted: Slotted) -> Slotted:
    slotted.later = 1
    return slotted


TENSOR = torch.ones(4)
OTHERWISE: dict[str, list[Any]] = {
    # of each argument, functions of the call that give another value
    "x": [lambda call: TENSOR, lambda call: call["x"].t(), lambda call: call["x"][:, :3]],
    "total": [
        lambda call: call["slotted"].ids,
        lambda call: call["x"].flatten()[:4],
        lambda call: call["total"].expand(2, 4)[1],
        lambda call: torch.ones(8)[::2],
    ],
    "held": [
        lambda call: {},
        lambda call: {"n": call["total"], "taps": call["held"]["taps"]},
        lambda call: {"n": TENSOR, "taps": call["kept"]},
        lambda call: {"taps": call["held"]["taps"], "n": TENSOR},
    ],
    "kept": [lambda call: [call["wide"]], lambda call: [call["total"][:2]], lambda call: ()],
    "slotted": [
        lambda call: later(Slotted(TENSOR)),
        lambda call: Slotted.__new__(Slotted),
        lambda call: Slotted(call["total"]),
        lambda call: Batch(TENSOR),
    ],
    "queue": [
        lambda call: collections.deque([TENSOR], maxlen=3),
        lambda call: collections.deque([TENSOR, TENSOR]),
        lambda call: [TENSOR],
    ],
    "wide": [
        lambda call: torch.ones(3, 3),
        lambda call: torch.ones(9, 3),
        lambda call: torch.ones(3, 2).t(),
        lambda call: torch.ones(2, 6)[:, ::2],
        lambda call: torch.ones(2, 3, device="meta"),
        lambda call: torch.ones(2, 3, requires_grad=True),
    ],
    "turned": [
        lambda call: call["turned"].conj(),
        lambda call: torch._neg_view(call["turned"]),
        lambda call: call["turned"].to_sparse(),
        lambda call: nn.Parameter(call["turned"]),
    ],
}


@pytest.mark.parametrize(
    ("argument", "number", "message"),
    [
        ("x", 0, r"x: got .*\[4\].*, takes .*\[n, 4\]"),
        ("total", 0, r"total: got a tensor that shares memory with slotted\.ids.*\.clone\(\)"),
        ("held", 2, "kept: got a list that is held\\['taps'\\], too.*pass a copy"),
        ("held", 3, r"held: got a dict of 2, takes a dict with keys \['n', 'taps'\]"),
        ("slotted", 0, "slotted: got .*Slotted.*, takes a Slotted with attributes ids"),
        ("slotted", 1, r"slotted\.ids: got nothing"),
        ("queue", 0, "queue: got deque.*, takes a deque like the example's"),
        ("wide", 1, r"wide: got axis 'm' of size 9, takes 2\.\.8"),
        ("wide", 2, r"wide: got strides \(1, 2\), takes .*wide\.clone\(memory_format"),
        ("wide", 3, r"wide: got strides \(6, 2\), takes strides \(3, 1\)"),
        ("turned", 0, r"turned: got .*a conjugate or negative view.*\.resolve_conj\(\)"),
        ("turned", 1, r"turned: got .*a conjugate or negative view.*\.resolve_neg\(\)"),
        ("turned", 2, r"turned: got .*of layout torch\.sparse_coo.*\.to_dense\(\)"),
    ],
)
def test_a_refusal_says_what_to_do(
    changing: hotstart.Program, argument: str, number: int, message: str
) -> None:
    call = passed()
    call[argument] = OTHERWISE[argument][number](call)
    with pytest.raises(ContractError, match=message):
        changing(**call)


def test_a_size_between_those_that_are_served_is_refused(changing: hotstart.Program) -> None:
    with pytest.raises(ContractError, match=r"x: got axis 'n' of size 3, takes 2 or 4"):
        changing(**passed(3))


@settings(max_examples=80)
@given(data=st.data())
def test_anything_of_a_contract_is_checked_and_explained(
    changing: hotstart.Program, data: Any
) -> None:
    call = passed(data.draw(st.sampled_from([0, 1, 2, 3, 4, 4, 5])))
    changes = {}
    for name in data.draw(st.lists(st.sampled_from(sorted(OTHERWISE)), max_size=2, unique=True)):
        changes[name] = data.draw(st.sampled_from(OTHERWISE[name]))(call)
    assert_consistent(changing, call | changes)
