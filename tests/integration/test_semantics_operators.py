"""Operators that users define: with `custom_op`, `triton_op`, and `Library`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import both, build, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn


@torch.library.custom_op("hotstart_semantics::halve_into", mutates_args=("out",))
def halve_into(x: Tensor, out: Tensor) -> Tensor:
    out.copy_(x / 2)
    return x.sum()


@halve_into.register_fake
def _(x: Tensor, out: Tensor) -> Tensor:
    return x.new_empty(())


@torch.library.custom_op("hotstart_semantics::scale_all", mutates_args=())
def scale_all(xs: list[Tensor], bias: Tensor | None, by: float, name: str) -> list[Tensor]:
    return [x * by for x in xs]


@scale_all.register_fake
def _(xs: list[Tensor], bias: Tensor | None, by: float, name: str) -> list[Tensor]:
    return [torch.empty_like(x) for x in xs]


@torch.library.triton_op("hotstart_semantics::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@torch.library.triton_op("hotstart_semantics::kernel", mutates_args=())
def kernel(x: Tensor) -> Tensor:
    torch.library.wrap_triton(lambda: None)[(1,)](x)
    return x * 2


@pytest.fixture
def library() -> Iterator[torch.library.Library]:
    with torch.library._scoped_library("hotstart_library", "DEF") as made:
        yield made


@both
def test_an_operator_that_writes_to_its_arguments(compiler: str) -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.zeros(3, 4))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            made = torch.empty_like(x)
            sums = halve_into(x.sin(), made), halve_into(made, self.kept)
            halve_into(self.kept, x)
            halve_into(made[0], made[1])
            return *sums, made

    check(Writes(), (R(3, 4),), compiler=compiler, tolerance=1e-6)


@mostly_eager
def test_lists_optionals_numbers_and_text(compiler: str) -> None:
    check(lambda x: scale_all([x, x + 1], None, 2.5, "name"), (R(3, 4),), compiler=compiler)


@mostly_eager
def test_operators_of_a_library(library: torch.library.Library, compiler: str) -> None:
    library.define("everywhere(Tensor x) -> Tensor")
    library.impl("everywhere", lambda x: x * 3, "CompositeExplicitAutograd")
    library.define("composed(Tensor x) -> Tensor")
    library.impl("composed", lambda x: x * 3 + 1, "CompositeImplicitAutograd")
    library.define("on_cpu(Tensor x) -> Tensor")
    library.impl("on_cpu", lambda x: x * 3, "CPU")
    torch.library.register_fake("hotstart_library::on_cpu", torch.empty_like, lib=library)
    ops = torch.ops.hotstart_library

    def f(x: Tensor) -> tuple[Tensor, ...]:
        return ops.everywhere(x.sin()), ops.composed(x), ops.on_cpu(x)

    check(f, (R(3, 4),), compiler=compiler, tolerance=1e-6)


def test_an_operator_without_a_fake_is_refused(library: torch.library.Library) -> None:
    library.define("nothing_known(Tensor x) -> Tensor")
    library.impl("nothing_known", lambda x: x * 3, "CPU")
    with pytest.raises(hotstart.CaptureError, match=r"nothing_known\(x\)[\s\S]*fake tensors"):
        build(lambda x: torch.ops.hotstart_library.nothing_known(x), R(3))


@mostly_eager
def test_a_triton_op_of_plain_operators(compiler: str) -> None:
    check(lambda x: twice(x) + 1, (R(3),), compiler=compiler)


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="there is triton")
def test_a_triton_kernel_without_triton_is_refused() -> None:
    with pytest.raises(hotstart.CaptureError, match=r"kernel\(x\)[\s\S]*No module named 'triton'"):
        build(lambda x: kernel(x), R(3))


@pytest.mark.parametrize(
    "call",
    [
        lambda x, a, b: x.addcdiv_(a, b, value=2.7),
        lambda x, a, b: x.addcmul_(a, b, value=2.7),
        lambda x, a, b: x.add_(a, alpha=b.sum()),
        lambda x, a, b: torch.addcmul(x, a, b, value=2.7),
        lambda x, a, b: torch.addcdiv(x, a, b, value=2.7),
        lambda x, a, b: torch.addcdiv(x, a, b, value=b.sum()),
    ],
    ids=["addcdiv_", "addcmul_", "add_ with a tensor", "addcmul", "addcdiv", "with a tensor"],
)
def test_operators_that_multiply_and_add_round_as_in_eager(call: Any, tmp_path: Path) -> None:
    program = check(call, (R(40, 25), R(40, 25), R(40, 25) + 3))
    program.save(tmp_path / "made.hot")  # Dynamo's own way is an operator that Inductor registers


@both
def test_a_quotient_that_float16_has_no_room_for(compiler: str) -> None:
    def divides(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.addcdiv(x, a, b, value=1e-3)

    x, large, half = R(8).half(), torch.full((8,), 6e4).half(), torch.full((8,), 0.5).half()
    check(divides, (x, large, half), compiler=compiler, tolerance=1e-2)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int8, torch.int64, torch.float16, torch.float64], ids=str
)
def test_a_tensor_fills_another_of_the_dtype_that_its_number_has(dtype: torch.dtype) -> None:
    def filled(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((3,), x), torch.full((3,), x, dtype=torch.float32)

    check(filled, (torch.tensor(1).to(dtype),))


def test_dtypes_that_tensors_and_numbers_make() -> None:
    def f(x: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        rows = x.shape[0]
        return (
            x.to(torch.result_type(x, n)),
            n.to(torch.result_type(n, 1.5)),
            n.to(torch.result_type(rows, n)),
            x.to(torch.result_type(tensor=x, other=2)),
        )

    calls = [(R(rows, 2).half(), torch.tensor(3)) for rows in (4, 2)]
    check(f, *calls, dynamic_shapes={"x": {0: Dim("rows", min=1, max=8)}})


def test_sizes_become_tensors_in_every_way() -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        rows = x.shape[0]
        return (
            torch.as_tensor(rows),
            torch.as_tensor([rows, 2.5], dtype=torch.float64),
            torch.as_tensor(data=((rows, 1), (2, rows * 2))),
            torch.asarray(rows / 2),
            torch.asarray(x),
        )

    shapes = {"x": {0: Dim("rows", min=1, max=8)}}
    program = check(f, (R(4, 2),), (R(1, 2),), dynamic_shapes=shapes)
    assert not program.report.splits


def chunked_loss(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2, allow_retain_graph=True)
    return nn.functional.linear_cross_entropy(x, weight, target, options=options)


@pytest.mark.thorough
@mostly_eager
@pytest.mark.skipif(not hasattr(nn.functional, "linear_cross_entropy"), reason="torch 2.13 has it")
def test_an_operator_of_torch_that_import_torch_does_not_register(
    compiler: str, tmp_path: Path
) -> None:
    inputs = (R(6, 4), R(5, 4), torch.randint(5, (6,)))
    program = check(chunked_loss, inputs, compiler=compiler, tolerance=1e-6)
    program.save(tmp_path / "made.hot")  # runs in a process that imports torch alone
    (unit,) = program.artifact.units
    assert "import torch.nn.modules.linear_cross_entropy" in unit.source
