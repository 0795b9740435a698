"""The code that is generated for pieces and their arguments. Accept with EXPECTTEST_ACCEPT=1."""

from __future__ import annotations

import torch
from expecttest import TestCase
from torch import nn
from torch.nn import functional as F  # noqa: N812

from hotstart import Dim
from tests.golden.generated import build, code


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.down = nn.Linear(8, 4)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(4, 4)
        self.out = nn.Linear(4, 4)

    def forward(self, x, memory):
        attended = F.scaled_dot_product_attention(self.q(x), memory, memory, is_causal=False)
        return {"out": self.out(attended), "memory": memory}


class TestStitchedCode(TestCase):
    def test_two_blocks(self) -> None:
        model = nn.Sequential(Block(), Block()).eval()
        program = build(
            model, torch.randn(3, 4), dynamic_shapes={"input": {0: Dim("batch", min=1, max=8)}}
        )
        self.assertExpectedInline(
            code(program),
            """\
# Stitched by hotstart for batch=1..8.


def bind(weights, units, constants, owners):
    (
        _0_up_weight,
        _0_up_bias,
        _0_down_weight,
        _0_down_bias,
        _1_up_weight,
        _1_up_bias,
        _1_down_weight,
        _1_down_bias,
    ) = weights
    (unit_0,) = units
    piece_0 = unit_0(_0_up_weight, _0_up_bias, _0_down_weight, _0_down_bias)
    piece_1 = unit_0(_1_up_weight, _1_up_bias, _1_down_weight, _1_down_bias)

    def run(batch, input_1):
        args = [batch, input_1]
        del input_1
        (input_1_1,) = piece_0(args)  # 0
        args = [batch, input_1_1]
        del input_1_1
        (input_2,) = piece_1(args)  # 1
        return input_2

    return run
""",
        )
        self.assertExpectedInline(
            program.entry_code,
            """\
def call(input=MISSING, *excess, **unknown):
    if not (
        not unknown
        and not excess
        and model.training is False
        and not autocast_is_on()
        and (input.__class__ is Tensor or input.__class__ is Parameter)
        and input.dtype is float32
        and input.is_cpu
        and input.layout is strided
        and not input.is_neg()
        and len(input_shape := input.shape) == 2
        and 1 <= (batch := input_shape[0]) <= 8
        and input_shape[1] == 4
    ):
        return miss((input,), excess, unknown)
    run = bound()[0]
    if not input.is_contiguous():
        input = relayout(input, (0, 1), 'input')
    if not is_grad_enabled():
        return run(batch, input)
    set_grad_enabled(False)
    try:
        return run(batch, input)
    finally:
        set_grad_enabled(True)
""",
        )

    def test_attention_as_splitting_op(self) -> None:
        seq, past = Dim("seq", min=2, max=8), Dim("past", min=2, max=8)
        program = build(
            Attention().eval(),
            torch.randn(2, 3, 4),
            torch.randn(2, 5, 4),
            dynamic_shapes={"x": {1: seq}, "memory": {1: past}},
            split_on=["aten::scaled_dot_product_attention"],
        )
        self.assertExpectedInline(
            code(program),
            """\
# Stitched by hotstart for seq=2..8,past=2..8.
from hotstart.records.layout import fit
from torch.nn.functional import scaled_dot_product_attention


def bind(weights, units, constants, owners):
    q_weight, q_bias, out_weight, out_bias = weights
    (unit_0,) = units
    piece_0 = unit_0(q_weight, q_bias)
    piece_2 = unit_0(out_weight, out_bias)

    def run(seq, past, x, memory, memory_as_given):
        args = [seq, x]
        del x
        (linear,) = piece_0(args)  # q
        attended = scaled_dot_product_attention(linear, memory, memory, is_causal=False)
        del linear, memory
        if attended.stride() != (4*seq, 4, 1):
            attended = fit(attended, (4*seq, 4, 1))
        args = [seq, attended]
        del attended
        (linear_1,) = piece_2(args)  # out
        return {'out': linear_1, 'memory': memory_as_given}

    return run
""",
        )
        self.assertExpectedInline(
            program.entry_code,
            """\
def call(x=MISSING, memory=MISSING, *excess, **unknown):
    if not (
        not unknown
        and not excess
        and model.training is False
        and not autocast_is_on()
        and (x.__class__ is Tensor or x.__class__ is Parameter)
        and x.dtype is float32
        and x.is_cpu
        and x.layout is strided
        and not x.is_neg()
        and len(x_shape := x.shape) == 3
        and x_shape[0] == 2
        and 2 <= (seq := x_shape[1]) <= 8
        and x_shape[2] == 4
        and (memory.__class__ is Tensor or memory.__class__ is Parameter)
        and memory.dtype is float32
        and memory.is_cpu
        and memory.layout is strided
        and not memory.is_neg()
        and len(memory_shape := memory.shape) == 3
        and memory_shape[0] == 2
        and 2 <= (past := memory_shape[1]) <= 8
        and memory_shape[2] == 4
    ):
        return miss((x, memory), excess, unknown)
    run = bound()[0]
    memory_as_given = memory
    if not x.is_contiguous():
        x = relayout(x, (0, 1, 2), 'x')
    if not memory.is_contiguous():
        memory = relayout(memory, (0, 1, 2), 'memory')
    if not is_grad_enabled():
        return run(seq, past, x, memory, memory_as_given)
    set_grad_enabled(False)
    try:
        return run(seq, past, x, memory, memory_as_given)
    finally:
        set_grad_enabled(True)
""",
        )

    def test_nested_arguments(self) -> None:
        def model(batch, *, weights=(1.0, 2.0), mode="sum"):
            x, (y, z) = batch["x"], batch["rest"]
            parts = torch.cat([x * weights[0], y * weights[1]], dim=-1).chunk(2, dim=-1)
            return (parts[1], [z[..., 1:, None], mode])

        batch = {"x": torch.randn(2, 3), "rest": (torch.randn(2, 3), torch.randn(2, 3))}
        program = build(model, batch, split_on=["aten::cat", "aten::chunk"])
        self.assertExpectedInline(
            code(program),
            """\
# Stitched by hotstart for static.
from hotstart.records.layout import fit
from torch import cat


def bind(weights, units, constants, owners):
    unit_0, unit_1 = units
    piece_0 = unit_0()
    piece_2 = unit_1()

    def run(batch_x, batch_rest_0, batch_rest_1):
        args = [batch_x, batch_rest_0]
        del batch_x, batch_rest_0
        mul, mul_1 = piece_0(args)
        cat_1 = cat([mul, mul_1], dim=-1)
        del mul, mul_1
        chunk = cat_1.chunk(2, dim=-1)
        del cat_1
        getitem_1 = chunk[1]
        del chunk
        if getitem_1.stride() != (6, 1):
            getitem_1 = fit(getitem_1, (6, 1))
        args = [batch_rest_1]
        piece_2(args)
        getitem_2 = batch_rest_1.storage_offset() + 1
        getitem_2 = batch_rest_1.detach().as_strided((2, 2, 1), (3, 1, 1), getitem_2)
        del batch_rest_1
        return (getitem_1, [getitem_2, 'sum'])

    return run
""",
        )
        self.assertExpectedInline(
            program.entry_code,
            """\
def call(batch=MISSING, *excess, weights=weights_default, mode='sum', **unknown):
    if not (
        not unknown
        and not excess
        and not autocast_is_on()
        and batch.__class__ is dict
        and list(batch) == ['x', 'rest']
    ):
        return miss((batch, weights, mode), excess, unknown)
    batch_x, batch_rest = batch.values()
    if not (
        (batch_x.__class__ is Tensor or batch_x.__class__ is Parameter)
        and batch_x.dtype is float32
        and batch_x.is_cpu
        and batch_x.layout is strided
        and not batch_x.is_neg()
        and batch_x.shape == (2, 3)
        and batch_rest.__class__ is tuple
        and len(batch_rest) == 2
    ):
        return miss((batch, weights, mode), excess, unknown)
    batch_rest_0, batch_rest_1 = batch_rest
    if not (
        (batch_rest_0.__class__ is Tensor or batch_rest_0.__class__ is Parameter)
        and batch_rest_0.dtype is float32
        and batch_rest_0.is_cpu
        and batch_rest_0.layout is strided
        and not batch_rest_0.is_neg()
        and batch_rest_0.shape == (2, 3)
        and (batch_rest_1.__class__ is Tensor or batch_rest_1.__class__ is Parameter)
        and batch_rest_1.dtype is float32
        and batch_rest_1.is_cpu
        and batch_rest_1.layout is strided
        and not batch_rest_1.is_neg()
        and batch_rest_1.shape == (2, 3)
        and (weights is weights_default or same_constant(weights, weights_default))
        and mode.__class__ is str and mode == 'sum'
    ):
        return miss((batch, weights, mode), excess, unknown)
    run = bound()[0]
    if not batch_x.is_contiguous():
        batch_x = relayout(batch_x, (0, 1), "batch['x']")
    if not batch_rest_0.is_contiguous():
        batch_rest_0 = relayout(batch_rest_0, (0, 1), "batch['rest'][0]")
    if not batch_rest_1.is_contiguous():
        batch_rest_1 = relayout(batch_rest_1, (0, 1), "batch['rest'][1]")
    if not is_grad_enabled():
        return run(batch_x, batch_rest_0, batch_rest_1)
    set_grad_enabled(False)
    try:
        return run(batch_x, batch_rest_0, batch_rest_1)
    finally:
        set_grad_enabled(True)
""",
        )
