# ruff: noqa: E501 - as it is printed
"""How calls that were observed are printed."""

from __future__ import annotations

from typing import Any

import torch
from expecttest import assert_expected_inline
from torch import Tensor, nn

import hotstart


class Encoder(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor | None = None, **more: Any) -> Tensor:
        return ids


def call(model: Any, batch: int, seq: int, **more: Any) -> None:
    model(torch.zeros(batch, seq, dtype=torch.int64), **more)


def test_a_table() -> None:
    with hotstart.observe({"encoder": Encoder().eval(), "other": Encoder().eval()}) as calls:
        model = calls["encoder"].model
        for size in (2, 5, 9):
            call(model, 1, size, mask=torch.zeros(1, size), state={"h": torch.zeros(3, size + 1)})
        call(model, 2, 4, return_dict=True)
        call(model, 2, 4, return_dict=True)
        call(model, 3, 3, limit=4)
        call(model, 7, 7, limit=4)
    assert_expected_inline(
        str(calls),
        """\
encoder: Encoder.forward: 7 calls
  main: 3 calls
    ids         int64 [1, seq] on cpu
    mask        float32 [1, seq] on cpu
    state['h']  float32 [3, state_h_1] on cpu
    axis seq: 2..16, seen 2, 5, 9
    axis state_h_1: 2..16, seen 3, 6, 10
    in every call: state_h_1 == seq + 1; each is compiled for its whole range
  main_2: 2 calls
    ids          int64 [2, 4] on cpu
    return_dict  True
    no size varied, so all are static; observe calls of other sizes for ranges
  main_3: 2 calls
    ids    int64 [batch, batch] on cpu
    limit  4
    axis batch: 2..8, seen 3, 7
      ids[0] and ids[1] had the same size in every call, and have to; observe a call where they differ if that is chance

other: Encoder.forward: 0 calls
  nothing to propose: Encoder.forward: expected at least one call while it was observed, found none that returned. Call it inside the `with` block, through the object that is observed.""",
    )


def test_what_cannot_be_proposed_is_said() -> None:
    with hotstart.observe(Encoder().eval()) as calls:
        for number in range(9):
            call(calls.model, 1, 1, limit=number)
    assert_expected_inline(
        str(calls),
        """\
Encoder.forward: 9 calls
  nothing to propose: Encoder.forward: expected calls of at most 8 forms, found 9: limit was 0, 1, 2, 3, 4 and others. Every value that is no tensor is compiled on its own: pass it as a tensor, or observe only the values that the program is to serve.""",
    )
