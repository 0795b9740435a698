"""Grad and inference modes around calls, and what forward itself does with autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Options
from tests.semantics import assert_same, both, build, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn

# --- around calls ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_calls_in_every_mode_give_the_same_without_grad(mode: Any) -> None:
    model = nn.Linear(4, 4)
    program = build(model, R(2, 4))
    x = R(2, 4, requires_grad=True)
    with mode():
        found = program(x)
        assert torch.is_grad_enabled() is (mode is torch.enable_grad)
    assert not found.requires_grad
    assert_same(found, model(x).detach(), 1e-6)


def test_programs_built_under_inference_mode_run_outside_of_it() -> None:
    model = nn.Linear(4, 4)
    with torch.inference_mode():
        program = build(model, R(2, 4))
    x = R(2, 4)
    assert_same(program(x), model(x).detach(), 1e-6)


def test_arguments_are_written_whatever_mode_a_program_was_built_in() -> None:
    with torch.inference_mode():
        program = build(lambda x: x.add_(1), R(3, 4))
    x = torch.zeros(4, 3).t()  # copied into the compiled layout, and back
    program(x)
    assert_same(x, torch.ones(4, 3).t())


@mostly_eager
def test_inference_tensors_are_arguments_and_weights(compiler: str) -> None:
    with torch.inference_mode():
        model = nn.BatchNorm1d(4).eval()
        x = R(2, 4)
    program = build(model, x, compiler=compiler)
    with torch.inference_mode():
        expected = model(x)
    assert_same(program(x), expected, 1e-6)


def test_an_inference_tensor_is_written_in_inference_mode_only() -> None:
    program = build(lambda x: x.add_(1), R(3))
    with torch.inference_mode():
        x = torch.zeros(3)
        program(x)
    assert x.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        program(x)


# --- inside forward ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@mostly_eager
def test_modes_inside_forward(mode: Any, compiler: str) -> None:
    linear = nn.Linear(4, 4)

    def f(x: Tensor) -> Tensor:
        with mode():
            y = linear(x)
        return y + 1

    check(f, (R(2, 4),), compiler=compiler, tolerance=1e-6)


@both
def test_gradients_that_forward_computes(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        force = -torch.func.grad(lambda v: (v**3).sum())(x)
        return force, x + 1

    check(f, (R(4),), compiler=compiler, tolerance=1e-6)


# Inductor's lowering of diagonals calls what torch has deprecated.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.torch._prims_common.check. is deprecated:FutureWarning")
@mostly_eager
def test_gradients_inside_other_transforms(compiler: str) -> None:
    def energy(v: Tensor) -> Tensor:
        return (v**3).sum()

    def f(x: Tensor) -> tuple[Any, ...]:
        return (
            torch.func.vmap(torch.func.grad(energy))(x),
            torch.func.hessian(energy)(x[0]),
            torch.func.jacrev(torch.sin)(x[1]),
            torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),)),
        )

    check(f, (R(3, 4),), compiler=compiler, tolerance=1e-5)


@mostly_eager
def test_gradients_under_the_grad_mode_of_forward(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = torch.func.grad(lambda v: (v @ v).sum())(x)
        with torch.no_grad():
            z = torch.func.grad(lambda v: (v**2).sum())(y)
        return z @ y

    settings = {"split_on": ["aten::matmul"]}
    check(f, (R(4, 4),), compiler=compiler, tolerance=1e-4, **settings)


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@mostly_eager
def test_functions_with_a_backward_of_their_own(compiler: str) -> None:
    check(lambda x: Sine.apply(x) + 1, (R(3),), compiler=compiler, tolerance=1e-6)


def test_forward_sees_that_grad_is_off() -> None:
    def f(x: Tensor) -> Tensor:
        return x + 1 if torch.is_grad_enabled() or x.requires_grad else x + 2

    check(f, (R(3),))
    assert_same(build(f, R(3, requires_grad=True))(torch.zeros(3)), torch.full((3,), 2.0))


def test_asking_for_inference_mode_is_refused() -> None:
    def f(x: Tensor) -> Tensor:
        return x + 1 if torch.is_inference_mode_enabled() else x

    with pytest.raises(hotstart.CaptureError, match="is_inference_mode_enabled"):
        build(f, R(3))


# --- autocast ----------------------------------------------------------------------------------


@mostly_eager
def test_an_autocast_region_stays_in_one_piece(compiler: str) -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            blocks = [nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)) for _ in range(3)]
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast("cpu", torch.bfloat16):
                for block in self.blocks:
                    x = block(x)
                with torch.autocast("cpu", enabled=False):
                    y = self.blocks[0](x.float())
            return x, y

    check(Blocks(), (R(2, 4),), compiler=compiler, tolerance=3e-2)


def test_autocast_to_float16() -> None:
    linear = nn.Linear(4, 4)

    @torch.autocast("cpu", torch.float16)
    def f(x: Tensor) -> Tensor:
        return linear(x)

    check(f, (R(2, 4),))


@mostly_eager
def test_a_program_is_saved_within_the_region_or_outside(compiler: str, tmp_path: Path) -> None:
    linear = nn.Linear(4, 4)
    x = R(2, 4)
    options = Options(compiler=compiler)  # type: ignore[arg-type]
    plain = hotstart.compile(linear, (x,), options=options)
    with torch.autocast("cpu", torch.bfloat16):
        program = hotstart.compile(linear, (x,), options=options)
        program.save(tmp_path / "within.hot")
        plain.save(tmp_path / "plain.hot")
        expected = linear(x).detach()
        assert_same(hotstart.load(tmp_path / "within.hot", linear)(x), expected, tolerance=3e-2)
    program.save(tmp_path / "outside.hot")
    assert (tmp_path / "outside.hot").read_bytes() == (tmp_path / "within.hot").read_bytes()
    assert_same(hotstart.load(tmp_path / "plain.hot", linear)(x), linear(x), tolerance=1e-6)


def test_a_region_without_autocast_in_one_with_it() -> None:
    linear = nn.Linear(4, 4)

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", enabled=False):
            y = linear(x)
        return y, linear(x)

    with torch.autocast("cpu", torch.bfloat16):
        program = hotstart.compile(f, (R(2, 4),), options=Options(compiler="op_by_op"))
        x = R(2, 4)
        found, expected = program(x), f(x)
    assert [t.dtype for t in found] == [torch.float32, torch.bfloat16]
    assert_same(found, tuple(t.detach() for t in expected))
