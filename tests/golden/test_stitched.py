"""The code that is generated for small models. Accept changes with EXPECTTEST_ACCEPT=1."""

from __future__ import annotations

import re
from typing import Any

import torch
from expecttest import TestCase
from torch import nn
from torch.nn import functional as F  # noqa: N812

import hotstart
from hotstart import Dim


def build(model: Any, *args: Any, **more: Any) -> hotstart.Program:
    return hotstart.compile(model, args, **more, options=hotstart.Options(compiler="op_by_op"))


def code(program: hotstart.Program) -> str:
    """All stitched code, without what differs between versions of torch and Python."""
    text = "\n".join(program.code.values())
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


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

    def test_updated_buffers_and_changed_inputs(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.BatchNorm1d(3)

            def forward(self, x, total):
                total += x.sum(0)
                return self.norm(x), total

        program = build(Model().train(), torch.randn(2, 3), torch.zeros(3))
        self.assertExpectedInline(
            code(program),
            """\
# Stitched by hotstart for static.


def bind(weights, units, constants, owners):
    norm_num_batches_tracked, norm_running_mean, norm_running_var, norm_weight, norm_bias = weights
    (unit_0,) = units
    piece_0 = unit_0(
        norm_num_batches_tracked, norm_running_mean, norm_running_var, norm_weight, norm_bias
    )

    def run(x, total, total_as_given):
        args = [x, total]
        del x
        (batch_norm,) = piece_0(args)  # norm
        total_1 = total
        del total
        return (batch_norm, total_as_given)

    return run
""",
        )
        self.assertExpectedInline(
            program.entry_code,
            """\
def call(x=MISSING, total=MISSING, *excess, **unknown):
    if not (
        not unknown
        and not excess
        and model.training is True
        and not autocast_is_on()
        and (x.__class__ is Tensor or x.__class__ is Parameter)
        and x.dtype is float32
        and x.is_cpu
        and x.layout is strided
        and not x.is_neg()
        and x.shape == (2, 3)
        and (total.__class__ is Tensor or total.__class__ is Parameter)
        and total.dtype is float32
        and total.is_cpu
        and total.layout is strided
        and not total.is_neg()
        and total.shape == (3,)
        and (total.is_contiguous() or is_apart(total))
        and not overlap((x, total), (1,))
    ):
        return miss((x, total), excess, unknown)
    run = bound()[0]
    if not (meeting((x, total), (1,)) is None):
        return miss((x, total), excess, unknown)
    total_as_given = total
    total_written = total
    if not x.is_contiguous():
        x = relayout(x, (0, 1), 'x')
    if not total.is_contiguous():
        total = relayout(total, (0,), 'total')
    if not is_grad_enabled():
        result = run(x, total, total_as_given)
        if total.data_ptr() != total_written.data_ptr():
            total_written.copy_(total)
        return result
    set_grad_enabled(False)
    try:
        result = run(x, total, total_as_given)
        if total.data_ptr() != total_written.data_ptr():
            total_written.copy_(total)
        return result
    finally:
        set_grad_enabled(True)
""",
        )

    def test_several_variants(self) -> None:
        def model(x):
            return x.reshape(-1, 2) * 2, x.shape[0]

        batch = Dim("batch", min=1, max=16, ranges=[(1, 4), (5, 16)], sizes=[1])
        program = build(model, torch.randn(4, 4), dynamic_shapes={"x": {0: batch}})
        self.assertExpectedInline(
            code(program),
            """\
# Stitched by hotstart for batch=2..4.


def bind(weights, units, constants, owners):
    (unit_0,) = units
    piece_0 = unit_0()

    def run(batch, x):
        args = [batch, x]
        del x
        (mul,) = piece_0(args)
        return (mul, batch)

    return run

# Stitched by hotstart for batch=5..16.


def bind(weights, units, constants, owners):
    (unit_0,) = units
    piece_0 = unit_0()

    def run(batch, x):
        args = [batch, x]
        del x
        (mul,) = piece_0(args)
        return (mul, batch)

    return run

# Stitched by hotstart for batch=1.


def bind(weights, units, constants, owners):
    (unit_0,) = units
    piece_0 = unit_0()

    def run(batch, x):
        args = [x]
        del x
        (mul,) = piece_0(args)
        return (mul, 1)

    return run
""",
        )
        self.assertExpectedInline(
            program.entry_code,
            """\
def call(x=MISSING, *excess, **unknown):
    if not (
        not unknown
        and not excess
        and not autocast_is_on()
        and (x.__class__ is Tensor or x.__class__ is Parameter)
        and x.dtype is float32
        and x.is_cpu
        and x.layout is strided
        and not x.is_neg()
        and len(x_shape := x.shape) == 2
        and 1 <= (batch := x_shape[0]) <= 16
        and x_shape[1] == 4
    ):
        return miss((x,), excess, unknown)
    if batch == 1:
        chosen = 2
    elif 5 <= batch <= 16:
        chosen = 1
    elif 2 <= batch <= 4:
        chosen = 0
    else:
        return miss((x,), excess, unknown)
    run = bound()[chosen]
    if not x.is_contiguous():
        x = relayout(x, (0, 1), 'x')
    if not is_grad_enabled():
        return run(batch, x)
    set_grad_enabled(False)
    try:
        return run(batch, x)
    finally:
        set_grad_enabled(True)
""",
        )

    def test_no_literal_says_a_tensor(self) -> None:
        table = torch.arange(3.0)

        def model(x):
            return F.pad(x, (1, 1), value=float("-inf")).to(torch.float64), table

        program = build(model, torch.randn(3), split_on=["aten::pad"])
        self.assertExpectedInline(
            code(program),
            """\
# Stitched by hotstart for static.
from hotstart.records.layout import fit
from torch._C._nn import pad


def bind(weights, units, constants, owners):
    (the_result_1,) = weights
    (unit_0,) = units
    piece_1 = unit_0()

    def run(x):
        pad_1 = pad(x, (1, 1), 'constant', float('-inf'))
        del x
        if pad_1.stride() != (1,):
            pad_1 = fit(pad_1, (1,))
        args = [pad_1]
        del pad_1
        (to,) = piece_1(args)
        return (to, the_result_1)

    return run
""",
        )
