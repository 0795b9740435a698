"""Linears run on packed weights, whatever their shapes, dtypes and ranges."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from tests.integration.packed.models import ALWAYS, ROWS, Mlp, Shapes, same

pytestmark = pytest.mark.usefixtures("kept_pieces")


class Heads(nn.Module):
    """Projections that share an input."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q(x).sin(), self.k(x), self.v(x).cos()


class Chunks(Heads):
    """Projections in chunks that overlap, as those of Longformer."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (y.as_strided((3, 2, 16), (16, 16, 1)) for y in (self.q(x), self.k(x), self.v(x)))
        return q.sin(), k.clone(), v.cos()


def packing(program: hotstart.Program) -> int:
    """How many of the preparations of a program's units pack weights."""
    return sum(p.packs for unit in program.artifact.units for p in unit.preparations)


def test_linears_run_on_packed_weights(mlp: nn.Module) -> None:
    program = hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS)
    assert packing(program) == 2
    for rows in (1, 2, 17, 64):
        same(mlp, program, torch.randn(rows, 32))
    assert program.report.packed.bytes >= 2 * 32 * 48 * 4


@pytest.mark.thorough
def test_without_packing_nothing_is_prepared(mlp: nn.Module) -> None:
    options = Options(pack_weights=False)
    program = hotstart.compile(mlp, (torch.randn(4, 32),), options=options)
    assert not any(unit.preparations for unit in program.artifact.units)
    assert program.report.packed.tensors == 0


@pytest.mark.thorough
def test_a_sum_with_a_transposed_tensor_serves_every_batch() -> None:
    torch.manual_seed(0)
    mlp = Mlp().eval()

    def transposed(x: Tensor) -> Tensor:
        made: Tensor = mlp(x.transpose(1, 2))
        return made

    images = {"x": {0: Dim("batch", min=1, max=16)}}
    program = hotstart.compile(
        transposed, (torch.randn(2, 32, 9),), dynamic_shapes=images, options=ALWAYS
    )
    assert packing(program)
    assert not program.report.splits
    for batch in (1, 2, 16):
        same(transposed, program, torch.randn(batch, 32, 9))


class Int8(nn.Module):
    """A linear on weights that are packed as int8 when the model is made."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (64, 64), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(64) / 127)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.aten._weight_int8pack_mm(x, self.weight, self.scales)
        return made.relu()


class Int4(nn.Module):
    """A linear on weights that are packed as int4 when the model is made."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randint(0, 16, (64, 64), dtype=torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight, 2)
        self.register_buffer("weight", packed)
        self.register_buffer("scales", torch.rand(2, 64, 2))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.weight, 32, self.scales)
        return made.relu()


@pytest.mark.thorough
@pytest.mark.parametrize("quantised", [Int8, Int4])
def test_weights_that_the_model_packed_itself_are_read_as_they_are(
    quantised: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(quantised(), quantised()).eval()
    rows = {"input": ROWS["x"]}
    program = hotstart.compile(model, (torch.randn(4, 64),), dynamic_shapes=rows, options=ALWAYS)
    for count in (1, 5, 64):
        x = torch.randn(count, 64)
        assert torch.equal(program(x), model(x))
    model.load_state_dict(nn.Sequential(quantised(), quantised()).state_dict())
    assert torch.equal(program(x), model(x))
    assert program.report.packed.bytes == 0


def test_repeated_layers_share_a_unit_and_not_what_is_made_of_their_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(Mlp() for _ in range(4))).eval()
    program = hotstart.compile(
        model, (torch.randn(4, 32),), dynamic_shapes={"input": ROWS["x"]}, options=ALWAYS
    )
    plain = hotstart.compile(
        model,
        (torch.randn(4, 32),),
        dynamic_shapes={"input": ROWS["x"]},
        options=Options(pack_weights=False),
    )
    assert len(program.artifact.units) == len(plain.artifact.units)
    same(model, program, torch.randn(9, 32))


@pytest.mark.thorough
def test_no_rows() -> None:
    torch.manual_seed(0)
    model = Mlp().eval()
    rows: Shapes = {"x": {0: Dim("rows", min=0, max=8)}}
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=rows, options=ALWAYS)
    for count in (0, 1, 8):
        same(model, program, torch.randn(count, 32))


def test_parts_of_a_range_share_what_is_made() -> None:
    torch.manual_seed(0)
    model = Mlp().eval()
    rows: Shapes = {"x": {0: Dim("rows", ranges=[(1, 8), (9, 64)])}}
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=rows, options=ALWAYS)
    same(model, program, torch.randn(4, 32))
    assert packing(program) == 4
    assert program.report.packed.bytes == 2 * 32 * 48 * 4


def test_projections_of_one_input_become_one() -> None:
    torch.manual_seed(0)
    model = Heads().eval()
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS)
    (unit,) = program.artifact.units
    for rows in (1, 5):
        same(model, program, torch.randn(rows, 32))
    assert len(re.findall(r"_linear_pointwise[\w.]*\(", unit.source)) == 1


@pytest.mark.thorough
def test_projections_that_are_read_by_strides_stay_apart() -> None:
    torch.manual_seed(0)
    model = Chunks().eval()
    shapes = {"x": {0: Dim("rows", min=4, max=64)}}
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=shapes, options=ALWAYS)
    assert packing(program) == 3
    for rows in (4, 8):
        same(model, program, torch.randn(rows, 32))


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Mlp().eval().to(dtype)
    x = torch.randn(6, 32, dtype=dtype)
    program = hotstart.compile(model, (x,), dynamic_shapes=ROWS, options=ALWAYS)
    for rows in (1, 6, 64):
        x = torch.randn(rows, 32, dtype=dtype)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=2e-2, atol=2e-2)


@pytest.mark.thorough
def test_recurrent_layers() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(16, 24, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    same(model, program, x)


@pytest.mark.thorough
def test_arithmetic_on_sizes_writes_to_nothing() -> None:
    class Positions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            length = x.shape[1]
            return x + torch.arange(length * 2 + 1)[:length].float() * (length * length)

    dims: Shapes = {"x": {0: Dim("batch", min=2, max=4), 1: Dim("seq", min=2, max=16)}}
    program = hotstart.compile(Positions(), (torch.randn(2, 5),), dynamic_shapes=dims)
    assert program.report.op_by_op == ()
    same(Positions(), program, torch.randn(3, 7))


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_anew")
def test_what_cannot_be_packed_is_reported(mlp: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def asks_for_a_value(*_: Any) -> Any:
        raise RuntimeError("no value here")

    monkeypatch.setattr("hotstart._torch.inductor.compile_fx.separate", asks_for_a_value)
    program = hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS)
    assert program.report.not_packed == (("piece_0", "RuntimeError: no value here"),)
    assert "run on weights that are not packed" in str(program.report)
    same(mlp, program, torch.randn(5, 32))
