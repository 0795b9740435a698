"""Units are data: bytes and source that a process without a compiler turns into a function."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import hotstart
from hotstart import Dim
from hotstart.records.artifact import CompiledUnit, Kernel
from hotstart.runtime.code.kernels import load_kernel
from hotstart.runtime.code.unit_functions import python_unit
from hotstart.runtime.weights.preparations import Prepared

pytestmark = pytest.mark.usefixtures("kept_pieces")


def f(x: Tensor, y: Tensor) -> Tensor:
    return (x.sin() + y).softmax(-1)


@pytest.fixture(scope="module")
def unit() -> CompiledUnit:
    dims = {0: Dim("rows", max=64)}
    program = hotstart.compile(
        f, (torch.zeros(2, 32), torch.zeros(2, 32)), dynamic_shapes={"x": dims, "y": dims}
    )
    (made,) = program.artifact.units
    return made


@pytest.mark.thorough
def test_a_unit_runs_from_its_data(unit: CompiledUnit) -> None:
    call = python_unit(unit).bound(Prepared(pack=True))
    x, y = torch.randn(7, 32), torch.randn(7, 32)
    args = [7, x, y]
    (result,) = call(args)
    torch.testing.assert_close(result, f(x, y))
    assert args == []


def test_a_kernel_is_loaded_once_in_a_process(unit: CompiledUnit) -> None:
    ((_, kernel), *_) = unit.kernels
    same = Kernel(kernel.name, bytes(bytearray(kernel.data)))
    assert load_kernel(kernel) is load_kernel(same)


@pytest.mark.thorough
def test_different_kernels_do_not_get_each_others_code(unit: CompiledUnit) -> None:
    other = hotstart.compile(lambda x: x * 3 + 1, (torch.zeros(32),))
    (made,) = other.artifact.units
    first, second = (
        python_unit(unit).bound(Prepared(pack=True)),
        python_unit(made).bound(Prepared(pack=True)),
    )
    open_files = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    held = [path for path in open_files if "memfd:hotstart" in str(path.readlink())]
    assert len(held) >= 2  # a number that came back would stand for another kernel
    torch.testing.assert_close(second([torch.ones(32)])[0], torch.full((32,), 4.0))
    x = torch.randn(3, 32)
    torch.testing.assert_close(first([3, x, x])[0], f(x, x))


def test_a_broken_kernel_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(ImportError):
        load_kernel(Kernel("0" * 64, b"no shared object"))
