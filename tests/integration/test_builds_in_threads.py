"""Builds in several threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart._torch.inductor.target_flags import compiling_for


class Steps(nn.Module):
    """Differs from others by how often a layer is called, and has a block that repeats."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.layer = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for step in range(self.steps):
            x = self.layer(x) + step
        for block in self.blocks:
            x = block(x)
        return x


def replaced_functions() -> list[str]:
    """Those of Dynamo's that a trace replaces, as far as they are not torch's own."""
    from torch._dynamo.variables import builder, lazy, nn_module
    from torch._dynamo.variables.builtin import BuiltinVariable

    functions: list[Callable[..., object]] = [
        builder.VariableBuilder.__call__,
        lazy.LazyVariableTracker.create,
        nn_module.UnspecializedNNModuleVariable.call_function,
        BuiltinVariable.call_function,
    ]
    return [f.__qualname__ for f in functions if not f.__module__.startswith("torch.")]


def built(steps: int) -> tuple[nn.Module, hotstart.Program]:
    torch.manual_seed(steps)
    model = Steps(steps).eval()
    program = hotstart.compile(
        model,
        (torch.randn(3, 8),),
        dynamic_shapes={"x": {0: hotstart.Dim("rows", max=9)}},
        options=hotstart.Options(compiler="op_by_op"),
    )
    return model, program


@pytest.mark.thorough
def test_programs_are_right_and_torch_is_left_as_it_was() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(built, (1, 2, 3, 4, 1, 2, 3, 4)))
    for model, program in made:
        for rows in (1, 9):
            x = torch.randn(rows, 8)
            assert torch.equal(program(x), model(x))
    assert replaced_functions() == []


@pytest.mark.thorough
def test_a_build_and_torch_compile_in_another_thread_do_not_wait_for_each_other() -> None:
    torch.compiler.reset()

    def by_torch(steps: int) -> bool:
        model, x = Steps(steps).eval(), torch.randn(3, 8)
        backend = {"backend": "hotstart", "options": {"compiler": "op_by_op"}}
        with torch.no_grad():
            return torch.equal(torch.compile(model, **backend)(x), model(x))

    with ThreadPoolExecutor(2) as threads:
        by_hotstart = threads.submit(lambda: [built(steps) for steps in (1, 2, 3)])
        assert threads.submit(lambda: [by_torch(s) for s in (1, 2, 3)]).result(120) == [True] * 3
        assert len(by_hotstart.result(120)) == 3


@pytest.mark.parametrize("second", ["x86-64-v4", "native"])
def test_flags_of_a_target_are_in_force_in_one_compile_at_a_time(second: str) -> None:
    from torch._inductor import cpp_builder

    def march() -> str:
        return str(cpp_builder.get_cpp_options(cpp_builder.get_cpp_compiler(), True)[2][-1])

    before, seen = march(), []
    within, entered = threading.Event(), threading.Event()

    def compile_after() -> None:
        within.wait(10)
        with compiling_for(second):
            entered.set()
            seen.append(march())

    thread = threading.Thread(target=compile_after)
    thread.start()
    with compiling_for("x86-64-v3"):
        within.set()
        assert not entered.wait(0.3)
        assert march() == "march=x86-64-v3"
    thread.join()
    assert seen == [before if second == "native" else f"march={second}"]
    assert march() == before
