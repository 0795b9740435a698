"""Conversions to narrower numbers round where forward asks for them, in kernels of Inductor too."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart._torch.inductor import compile_fx
from hotstart._torch.inductor.joined_kernels import AskedKernel, kernels_in
from tests.semantics import assert_same, both, build, check
from tests.versions import rounds_no_factors

pytestmark = pytest.mark.usefixtures("kept_pieces")

NARROW = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
ROWS = {"x": {0: Dim("rows", max=9)}}


def numbers(rows: int = 5, columns: int = 37) -> Tensor:
    """Numbers that float16 has, rounds, and has not."""
    x = torch.randn(rows, columns)
    x[:, ::3] *= 1e5
    return x


@pytest.mark.thorough
@NARROW
def test_down_and_up(dtype: torch.dtype) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        there = x.to(dtype)
        back = (there.float(), (x * 3).type(dtype).float() + 1, there.double(), there.long() * 2)
        return *back, there, (there.float() * 4).round().amax(-1)

    check(f, (numbers(),), (numbers(1),), (numbers(9),), compiler="inductor", dynamic_shapes=ROWS)


@pytest.mark.thorough
@NARROW
def test_what_an_operator_gives_in_narrow_numbers_is_rounded_before_it_is_widened(
    dtype: torch.dtype,
) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 0.3).float() * 3, (x * x).double()

    check(f, (torch.randn(5, 37, dtype=dtype),), compiler="inductor")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "through",
    [
        [torch.float16, torch.bfloat16],
        [torch.bfloat16, torch.float16],
        [torch.bfloat16, torch.float16, torch.bfloat16],
        [torch.float64, torch.bfloat16],
        [torch.float16, torch.float64, torch.float16],
    ],
    ids=str,
)
def test_chains(through: list[torch.dtype]) -> None:
    def f(x: Tensor) -> Tensor:
        for dtype in through:
            x = x.to(dtype)
        return x.float() + 1

    check(f, (numbers(),), compiler="inductor")


@pytest.mark.thorough
@NARROW
def test_whole_numbers_that_are_rounded(dtype: torch.dtype) -> None:
    def f(x: Tensor, scale: Tensor) -> Tensor:
        return x.to(dtype) * scale

    positions = torch.arange(4000).reshape(40, 100)
    check(f, (positions, torch.randn(100, dtype=dtype)), compiler="inductor")


@pytest.mark.thorough
@NARROW
def test_memory_of_narrow_numbers_that_is_written_to(dtype: torch.dtype) -> None:
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(4, 37, dtype=dtype))

        def forward(self, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
            self.seen[1:3] = x[:2]
            out.copy_(x * 3)
            return self.seen.float() * 0.5, out.float() - 1

    check(Cache(), (numbers(4), torch.zeros(4, 37, dtype=dtype)), compiler="inductor")


@pytest.mark.thorough
@NARROW
def test_branches_of_cond(dtype: torch.dtype) -> None:
    def f(x: Tensor) -> Tensor:
        def rounded(x: Tensor) -> Tensor:
            return (x * 3).to(dtype).float() + 1

        return torch.cond(x.sum() > 0, rounded, lambda x: x * 2, (x,))

    check(f, (numbers().abs(),), (-numbers().abs(),), compiler="inductor")


@pytest.mark.thorough
@NARROW
def test_what_rounds_to_whole_numbers_finds_those_of_eager(dtype: torch.dtype) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        whole = (x * 3).round(), (x * y).floor(), (x / y).trunc(), (x - y).ceil()
        return *whole, torch.fmod(x * 3, 0.5)

    x, y = torch.randn(40, 37), torch.randn(40, 37)
    program = check(f, ((x * 30).to(dtype), y.to(dtype)), compiler="inductor")
    assert not program.report.op_by_op


@pytest.mark.thorough
@NARROW
def test_what_compares_finds_what_eager_does(dtype: torch.dtype) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (x * y) > (x * 0.7), (x * 3) == y, torch.where(x * 1.3 <= y * 1.3, x, y)

    x = torch.randn(40, 37)
    program = check(f, (x.to(dtype), (x * 3).to(dtype)), compiler="inductor")
    assert not program.report.op_by_op


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The C++ of kernels that are compiled."""
    found: list[str] = []

    def noted(source: str) -> Mapping[str, AskedKernel]:
        asked = kernels_in(source)
        found.extend(kernel.source for kernel in asked.values())
        return asked

    monkeypatch.setattr(compile_fx, "kernels_in", noted)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_anew")
def test_what_operators_and_autocast_convert_by_themselves_is_not_rounded_once_more(
    kernels: list[str],
) -> None:
    def gated(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.silu(x) * y

    def cast(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return torch.relu(x @ y).exp() * 3

    x = torch.randn(16, 16)
    build(gated, x.bfloat16(), x.bfloat16(), compiler="inductor")
    build(cast, x, x, compiler="inductor")
    assert any("convert<at::BFloat16" in kernel for kernel in kernels)
    assert not any("rounded" in kernel for kernel in kernels)
    build(lambda x: gated(x, x).float(), x.bfloat16(), compiler="inductor")
    assert "rounded" in kernels[-1]


@pytest.mark.thorough
@pytest.mark.parametrize("factor", [0.3125, pytest.param(0.3, marks=rounds_no_factors)])
def test_a_setting_rounds_what_every_operator_gives(factor: float) -> None:
    def chain(x: Tensor) -> Tensor:
        return ((x * 1.5 + x) * x - 0.25).relu() * factor

    settings = {"emulate_precision_casts": True}
    x = torch.randn(5, 37, dtype=torch.bfloat16)
    program = hotstart.compile(chain, (x,), options=Options(inductor=settings))
    assert_same(program(x), chain(x))


@both
def test_rounding_to_decimals(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x.round(decimals=1), y.round(decimals=2), (y * 2.5).round(decimals=1)

    x = torch.linspace(-3, 3, 193)
    check(f, (x.bfloat16(), x), compiler=compiler)
