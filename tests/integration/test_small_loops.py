"""Kernels start threads where there is work for them, which a call decides by its sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart._torch.inductor.joined_kernels import AskedKernel, compile_kernels
from hotstart._torch.inductor.small_loops import LEAST

pytestmark = pytest.mark.skipif(
    torch.get_num_threads() == 1, reason="with one thread there is no region"
)

SIZES = {"x": {0: Dim("rows", min=0, max=4096)}}


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The source of the kernels that are compiled."""
    found: list[str] = []

    def noted(kernels: Mapping[str, AskedKernel], settings: Any) -> Any:
        found.extend(kernel.source for kernel in kernels.values())
        return compile_kernels(kernels, settings)

    monkeypatch.setattr("hotstart.compilers.inductor.make_unit.compile_kernels", noted)
    return found


def regions(kernels: list[str]) -> list[str]:
    """What is asked before the threads of a region start."""
    lines = re.findall(r"#pragma omp parallel.*", "\n".join(kernels))
    return [line.partition("if")[2] for line in lines]


def same(model: nn.Module, program: hotstart.Program, *sizes: int, wide: int) -> None:
    for size in sizes:
        x = torch.rand(size, wide)  # sums of positive numbers, which do not cancel
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.thorough
def test_a_loop_is_shared_from_a_size_on(kernels: list[str]) -> None:
    model = Function(lambda x: x.sin() + 1)
    program = hotstart.compile(model, (torch.randn(512, 128),), dynamic_shapes=SIZES)
    assert f"((128L*ks0) >= {LEAST})" in regions(kernels)
    same(model, program, 0, 1, 2, 31, 32, 33, 4096, wide=128)


@pytest.mark.thorough
def test_a_small_loop_of_a_known_size_has_no_region(kernels: list[str]) -> None:
    model = Function(lambda x: x.sin() + 1)
    program = hotstart.compile(model, (torch.randn(8, LEAST // 8 - 8),))
    assert kernels
    assert regions(kernels) == []
    same(model, program, 8, wide=LEAST // 8 - 8)


@pytest.mark.thorough
def test_sums_over_everything_are_right_on_both_sides(kernels: list[str]) -> None:
    model = Function(lambda x: (x.sum(), x.pow(2).mean(), x.softmax(-1).amax(0)))
    shapes = {"x": {0: Dim("rows", min=1, max=4096)}}
    program = hotstart.compile(model, (torch.randn(512, 64),), dynamic_shapes=shapes)
    assert any(str(LEAST) in asked for asked in regions(kernels))
    same(model, program, 1, 63, 64, 65, 500, 4096, wide=64)


@pytest.mark.thorough
def test_loops_that_share_an_outer_loop_count_together(kernels: list[str]) -> None:
    model = Function(lambda x: (x - x[:, :32].amax(1, keepdim=True)).exp().sum(1))
    program = hotstart.compile(model, (torch.randn(512, 1024),), dynamic_shapes=SIZES)
    assert f"((32L*ks0) + (1024L*ks0) >= {LEAST})" in regions(kernels)
    same(model, program, 0, 1, 3, 4, 127, 128, 512, wide=1024)


@pytest.mark.thorough
def test_what_torch_compile_gives_is_left_as_it_is(kernels: list[str]) -> None:
    options = Options(pack_weights=False)
    model = Function(lambda x: x.sin() + 1)
    hotstart.compile(model, (torch.randn(512, 128),), dynamic_shapes=SIZES, options=options)
    assert regions(kernels)
    assert not any(regions(kernels))
