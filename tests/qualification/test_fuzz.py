"""Random programs: how they are made, compared, and made shorter where something is wrong."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart._torch.running.around import around_operators
from qualification.fuzz import children, generate, measure, noise, programs, shrink
from qualification.fuzz.measure import Finding
from qualification.fuzz.programs import Call, Input, Program


def found(program: Program, compiler: str = "op_by_op") -> Finding:
    return measure.measure(program, compiler, lambda stage: None)


def program_of(*lines: str, **others: Any) -> Program:
    settings = {
        "seed": 0,
        "axes": {"m": (2, 9)},
        "inputs": (Input("x0", "float32", ("m", 3)),),
        "modules": {},
        "returned": programs.made(lines[-1]),
        "calls": tuple(Call({"m": size}, seed=size) for size in (5, 2, 9)),
    }
    return Program(lines=lines, **(settings | others))


LONG = program_of(
    "v0 = x0 * 2",
    "v1 = v0.floor()",
    "v2 = torch.cat([v1, x0])",
    "v3 = v2.softmax(0)",
    "x0.add_(1)",
    "v4 = v3 + v2",
    "v5 = x0.sum(0)",
    returned=("v5", "v4"),
)


@pytest.mark.parametrize("seed", [4, 7, 8])
def test_programs_give_what_eager_gives(seed: int) -> None:
    program = generate.generate(seed)
    assert program == generate.generate(seed)
    assert found(program) == Finding("same")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 4])
def test_programs_give_what_eager_gives_with_inductor(seed: int) -> None:
    assert found(generate.generate(seed), "inductor").outcome == "same"


class Faulty:
    """A model in which `floor` rounds up."""

    report = SimpleNamespace(op_by_op=(), without=())
    relayouts: Mapping[str, int] = MappingProxyType({})

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        self._model = model

    def __call__(self, *args: Any) -> Any:
        def upwards(func: Any, args: Any, kwargs: Any) -> Any:
            is_floor = func is torch.ops.aten.floor.default
            return (torch.ops.aten.ceil.default if is_floor else func)(*args, **kwargs)

        with around_operators(upwards):
            return self._model(*args)


@pytest.mark.parametrize("compiler", ["op_by_op", "inductor"])
def test_a_fault_is_found_and_made_short(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotstart, "compile", Faulty)
    finding = found(LONG, compiler)
    assert finding.outcome == "wrong"
    assert finding.note.startswith("result 1 differs in ")
    find: Callable[[Program], Finding] = lambda other: found(other, compiler)  # noqa: E731
    program, finding = shrink.shrunk(LONG, finding, find, 100)
    assert program.lines == ("v1 = x0.floor()",)
    assert not program.axes
    assert len(program.calls) == 1
    assert "def forward(self, x0):\n        v1 = x0.floor()\n" in programs.script(program, "", "")


def test_an_error_of_no_type_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Faulty, x: Tensor) -> None:
        raise KeyError(x.shape[0])

    monkeypatch.setattr(hotstart, "compile", Faulty)
    monkeypatch.setattr(Faulty, "__call__", fail)
    assert found(LONG) == Finding("raw", "KeyError: 5", 0)


def test_what_eager_refuses_is_no_program() -> None:
    assert found(program_of("v0 = x0.view(2, 2)")).outcome == "skipped"


def test_noise_decides_what_is_rounding() -> None:
    def model(x: Tensor) -> Tensor:
        return x.exp().floor() + x * 0.1

    x = torch.tensor([math.log(2), 0.5, 0.9])
    runs = [model(x), *(noise.with_rounding(model, seed, x) for seed in range(8))]
    close, far = runs[0] * (1 + 1e-7), runs[0] + torch.tensor([1.0, 1e-4, 1.0])
    assert not noise.wrong(close, runs, overflows=False).any()
    # The first is 2 but for rounding before it is rounded down: 1 or 2, and both are right.
    assert noise.wrong(far, runs, overflows=False).tolist() == [False, True, True]


def test_what_a_fork_does_not_survive() -> None:
    def die(say: Callable[[str], None]) -> Finding:
        say("build")
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(say: Callable[[str], None]) -> Finding:
        time.sleep(60)
        raise AssertionError

    def give(say: Callable[[str], None]) -> Finding:
        say("build")
        return Finding("same", "\n")

    assert children.in_child(die, Finding, 20).outcome == "crash"
    assert children.in_child(hang, Finding, 0.2).outcome == "slow"
    assert children.in_child(give, Finding, 20) == Finding("same", "\n")
