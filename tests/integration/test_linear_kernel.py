"""Linears run in a kernel of hotstart's where libraries are slower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart.compilers.inductor.linear import MOST_ROWS, MOST_ROWS_UNPACKED
from hotstart.compilers.inductor.packing_rule import this_processor
from tests.processes import run_fresh

pytestmark = pytest.mark.usefixtures("kept_pieces")

AVX2 = this_processor().vectors == 256
"""Whether the kernel computes all linears; elsewhere it computes those of few rows."""

only_avx2 = pytest.mark.skipif(not AVX2, reason="the kernel computes all linears with AVX2 only")
not_avx2 = pytest.mark.skipif(AVX2, reason="with AVX2 the kernel computes all linears")

ROWS = {"x": {0: Dim("rows", min=0, max=512)}}
AROUND = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 47, 48, 49, 63, 64, 65, 95, 96, 97, 512)
"""Numbers of rows at both ends of every table, and on each side of what a tile takes."""


def compiled(model: nn.Module, wide: int, **options: Any) -> hotstart.Program:
    given = Options(**options)
    x = torch.randn(32, wide)
    return hotstart.compile(model.eval(), (x,), dynamic_shapes=ROWS, options=given)


def each_source(program: hotstart.Program) -> list[str]:
    return [unit.source for unit in program.artifact.units]


def sources(program: hotstart.Program) -> str:
    return "".join(each_source(program))


def same(model: Callable[..., Any], program: hotstart.Program, *args: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(program(*args), model(*args), rtol=1e-4, atol=1e-5)


class Linear(nn.Module):
    """A linear with what may be fused into it."""

    def __init__(
        self, wide: int, many: int, after: Callable[[Tensor], Tensor], *, bias: bool = True
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(wide, many, bias=bias)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.linear(x))


def as_it_is(x: Tensor) -> Tensor:
    return x


def gelu_by_tanh(x: Tensor) -> Tensor:
    return nn.functional.gelu(x, approximate="tanh")


AFTER = (as_it_is, torch.relu, nn.functional.gelu, gelu_by_tanh, nn.functional.silu, torch.sigmoid,
         torch.tanh)  # fmt: skip


class Activated(nn.Module):
    """All of them, of inputs that differ, since linears that share one are made one linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linears = nn.ModuleList(nn.Linear(512, 512) for _ in AFTER)

    def forward(self, x: Tensor) -> list[Tensor]:
        inputs = [x * (1.0 + number) for number in range(len(AFTER))]
        linears = zip(self.linears, inputs, strict=True)
        return [after(linear(each)) for after, (linear, each) in zip(AFTER, linears, strict=True)]


@pytest.mark.slow
def test_what_is_fused_into_linears_is_done_to_their_results() -> None:
    model = Activated()
    program = compiled(model, 512)
    assert any(source.count("linear_kernel(") == len(AFTER) for source in each_source(program))
    assert ("mkldnn" in sources(program)) is not AVX2
    for rows in AROUND:
        same(model, program, torch.randn(rows, 512))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("wide", "many", "bias"),
    [(64, 64, True), (17, 33, False), (1, 1, True), (130, 7, True), (2100, 6, True)],
)
def test_weights_that_are_not_packed_are_read_as_they_are(wide: int, many: int, bias: bool) -> None:
    model = Linear(wide, many, as_it_is, bias=bias)
    program = compiled(model, wide)
    assert "linear_kernel(" in sources(program)
    assert "mkldnn" not in sources(program)
    for rows in AROUND:
        same(model, program, torch.randn(rows, wide))


@pytest.mark.thorough
def test_a_residual_is_added_and_a_gate_multiplied() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.gate, self.up = nn.Linear(128, 256), nn.Linear(128, 256, bias=False)
            self.down = nn.Linear(256, 128)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))

    model = Block()
    program = compiled(model, 128)
    assert "linear_kernel(" in sources(program)
    for rows in AROUND:
        same(model, program, torch.randn(rows, 128))


@pytest.mark.thorough
@pytest.mark.parametrize("pack_weights", [True, "always"])
def test_what_is_added_may_have_fewer_dimensions_and_takes_no_graph_of_its_own(
    pack_weights: Any,
) -> None:
    class Embeds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(8, 8)
            self.positions = nn.Parameter(torch.randn(32, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + self.positions[: x.shape[1]]

    model = Embeds().eval()
    shapes = {"x": {0: Dim("batch", max=9), 1: Dim("steps", max=32)}}
    options = Options(pack_weights=pack_weights)
    program = hotstart.compile(
        model, (torch.randn(3, 7, 8),), dynamic_shapes=shapes, options=options
    )
    assert len(program.report.variants) == 1
    for batch, steps in ((3, 7), (8, 8), (1, 1), (8, 1), (1, 32), (5, 5)):
        same(model, program, torch.randn(batch, steps, 8))


@pytest.mark.thorough
def test_projections_that_share_an_input_are_made_part_by_part() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v = nn.Linear(64, 64), nn.Linear(64, 16), nn.Linear(64, 30)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self.q(x).sin(), self.k(x), self.v(x).cos()

    model = Heads()
    program = compiled(model, 64)
    assert all(source.count("linear_kernel(") in (0, 3) for source in each_source(program))
    assert "linear_kernel(" in sources(program)
    for rows in AROUND:
        same(model, program, torch.randn(rows, 64))


@pytest.mark.thorough
def test_rows_of_a_larger_tensor_are_read_where_they_are() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.pool = nn.Linear(48, 48)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.pool(x.exp()[:, 0]))

    model = First().eval()
    shapes = {"x": {0: Dim("batch", min=0, max=64)}}
    program = hotstart.compile(model, (torch.randn(8, 5, 48),), dynamic_shapes=shapes)
    assert "linear_kernel(" in sources(program)
    for batch in (0, 1, 2, 16, 17, 64):
        same(model, program, torch.randn(batch, 5, 48))


@pytest.mark.thorough
def test_rows_are_those_of_batch_and_length_together() -> None:
    model = Linear(64, 64, as_it_is).eval()
    shapes = {"x": {0: Dim("batch", max=8), 1: Dim("length", max=32)}}
    program = hotstart.compile(model, (torch.randn(2, 4, 64),), dynamic_shapes=shapes)
    assert "linear_kernel(" in sources(program)
    for size in [(1, 1), (2, 8), (4, 4), (17, 1), (3, 6), (8, 32)]:
        if size[0] <= 8:
            same(model, program, torch.randn(*size, 64))


@pytest.mark.thorough
def test_a_row_is_the_same_whatever_other_rows_there_are() -> None:
    program = compiled(Linear(64, 64, torch.tanh), 64)
    x = torch.randn(16, 64)
    alone = torch.cat([program(row) for row in x.split(1)])
    assert torch.equal(program(x), alone)


@pytest.mark.thorough
def test_values_that_are_no_numbers_pass() -> None:
    model = Linear(64, 64, torch.relu)
    program = compiled(model, 64)
    x = torch.zeros(3, 64)
    x[0, 3], x[1, 5] = float("nan"), float("inf")
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), equal_nan=True)


@pytest.mark.parametrize(
    ("options", "wide", "many"),
    [
        pytest.param({"pack_weights": False}, 64, 64, id="off"),
        pytest.param({"pack_weights": "always"}, 64, 64, id="packed only"),
        pytest.param({"compiler": "op_by_op"}, 64, 64, id="op by op"),
    ],
)
def test_other_linears_are_not_its(options: dict[str, Any], wide: int, many: int) -> None:
    model = Linear(wide, many, as_it_is)
    program = compiled(model, wide, **options)
    assert "linear_kernel(" not in sources(program)
    same(model, program, torch.randn(2, wide))


@only_avx2
@pytest.mark.parametrize("rows", [16, 64, 512])
def test_nothing_is_packed_that_the_kernel_reads(rows: int) -> None:
    model = Linear(512, 512, torch.relu).eval()
    x = torch.randn(rows, 512)
    program = hotstart.compile(model, (x,))
    assert "linear_kernel(" in sources(program)
    assert "mkldnn" not in sources(program)
    assert not any(unit.preparations for unit in program.artifact.units)
    same(model, program, x)


@pytest.mark.thorough
@only_avx2
def test_a_weight_may_have_a_row_for_each_input() -> None:
    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v = (nn.Parameter(torch.randn(96, n)) for n in (64, 7, 30))
            self.up, self.down = (nn.Parameter(torch.randn(*n) / 9) for n in ((64, 200), (200, 64)))
            self.bias = nn.Parameter(torch.randn(200))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = (x @ weight for weight in (self.q, self.k, self.v))
            inner = nn.functional.gelu(torch.addmm(self.bias, q / 9, self.up))
            return q + inner @ self.down, k, v

    model = Across()
    program = compiled(model, 96)
    assert any(source.count("linear_kernel(") == 5 for source in each_source(program))
    assert not any(unit.preparations for unit in program.artifact.units)
    for rows in AROUND:
        same(model, program, torch.randn(rows, 96))


@pytest.mark.thorough
@only_avx2
def test_what_is_made_of_weights_for_others_is_made_still() -> None:
    class Both(nn.Module):
        """A linear beside a convolution, whose weight is packed, for each size of an image."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, 32, 3, padding=1)
            self.mixed = nn.Linear(32, 40)

        def forward(self, x: Tensor) -> Tensor:
            return self.mixed(self.patches(x).flatten(2).mT).relu()

    model = Both().eval()
    shapes = {"x": {0: Dim("batch", max=8), 2: Dim("height", min=2, max=40)}}
    program = hotstart.compile(model, (torch.randn(2, 3, 20, 16),), dynamic_shapes=shapes)
    assert "linear_kernel(" in sources(program)
    assert any(unit.preparations for unit in program.artifact.units)
    for batch, height in ((1, 2), (2, 20), (8, 40), (3, 7)):
        same(model, program, torch.randn(batch, 3, height, 16))


@pytest.mark.thorough
@pytest.mark.parametrize("pack_weights", [True, "always"])
@pytest.mark.parametrize(("wide", "many"), [(64, 0), (0, 64)])
def test_a_weight_may_be_empty(wide: int, many: int, pack_weights: Any) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(many, wide), torch.randn(many)

    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x[:, :wide].exp(), self.weight, self.bias)

    model = Empty()
    program = compiled(model, 64, pack_weights=pack_weights, prove="off")
    for rows in AROUND:
        same(model, program, torch.randn(rows, 64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_not_its(dtype: torch.dtype) -> None:
    model = Linear(64, 64, as_it_is).eval().to(dtype)
    x = torch.randn(2, 64, dtype=dtype)
    program = hotstart.compile(model, (x,))
    assert "linear_kernel(" not in sources(program)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x))


@not_avx2
def test_more_rows_than_the_kernel_is_for_leave_none() -> None:
    least = max(most for _, most in (*MOST_ROWS, *MOST_ROWS_UNPACKED)) + 1
    model = Linear(64, 64, as_it_is).eval()
    shapes = {"x": {0: Dim("rows", min=least, max=512)}}
    program = hotstart.compile(model, (torch.randn(2 * least, 64),), dynamic_shapes=shapes)
    assert "linear_kernel(" not in sources(program)


@pytest.mark.thorough
def test_a_weight_that_calls_write_to_is_read_as_it_is_then() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.weight.add_(1.0)
            return x @ self.weight.t()

    eager, model = Counting().eval(), Counting().eval()
    x = torch.randn(3, 4)
    program = hotstart.compile(model, (x,))
    for _ in range(3):
        torch.testing.assert_close(program(x), eager(x))


@pytest.mark.thorough
def test_changed_weights_are_seen_for_few_rows_and_many() -> None:
    model = Linear(256, 256, as_it_is)
    program = compiled(model, 256)
    few, many = torch.randn(2, 256), torch.randn(40, 256)
    for x in (few, many):
        same(model, program, x)
    with torch.no_grad():
        model.linear.weight.mul_(2.0)
    for x in (few, many):
        same(model, program, x)
    model.load_state_dict(Linear(256, 256, as_it_is).state_dict(), assign=True)
    for x in (few, many):
        same(model, program, x)


FRESH = """
    import json, sys
    import torch
    import hotstart
    program = hotstart.load(sys.argv[1], weights=sys.argv[2])
    torch.manual_seed(1)
    results = [program(torch.randn(rows, 256)).double().sum().item() for rows in (1, 4, 5, 40)]
    print(json.dumps({"results": results, "form": str(program.report.not_native)}))
"""


@pytest.mark.slow
def test_both_forms_give_the_same_bits_in_another_process(tmp_path: Path) -> None:
    model = Linear(256, 256, nn.functional.silu)
    found = {}
    for form in ("native", "python"):
        program = compiled(model, 256, form=form)
        program.save(tmp_path / f"{form}.hot")
        program.save_weights(tmp_path / f"{form}.weights")
        fresh = run_fresh(FRESH, tmp_path / f"{form}.hot", tmp_path / f"{form}.weights")
        found[form] = fresh["results"]
    torch.manual_seed(1)
    with torch.no_grad():
        expected = [model(torch.randn(rows, 256)).double().sum().item() for rows in (1, 4, 5, 40)]
    assert found["native"] == found["python"] == pytest.approx(expected, rel=1e-4)
