"""The code that is generated for changes, variants and literals; see `test_stitched`."""

from __future__ import annotations

import torch
from expecttest import TestCase
from torch import nn
from torch.nn import functional as F  # noqa: N812

from hotstart import Dim
from tests.golden.generated import build, code


class TestStitchedChanges(TestCase):
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
