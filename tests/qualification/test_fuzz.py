"""Random programs: how they are made, compared, and made shorter where something is wrong."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart._torch.running.around import around_operators
from qualification.fuzz import children, generate, measure, noise, programs, shrink
from qualification.fuzz.measure import Finding
from qualification.fuzz.programs import Call, Input, Program
from qualification.fuzz.saved import Loader
from qualification.fuzz.seen import Seen


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    loader.start()
    yield loader
    loader.close()


def found(program: Program, compiler: str = "op_by_op", loader: Loader | None = None) -> Finding:
    return measure.measure(program, compiler, lambda stage: None, loader)


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


@pytest.mark.parametrize("seed", [pytest.param(4, marks=pytest.mark.thorough), 7, 8])
def test_programs_give_what_eager_gives(seed: int) -> None:
    program = generate.generate(seed)
    assert program == generate.generate(seed)
    assert found(program) == Finding("same")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 4])
def test_programs_give_what_eager_gives_with_inductor(seed: int, loader: Loader) -> None:
    assert found(generate.generate(seed), "inductor", loader).outcome == "same"


STATE = program_of(
    "v0 = self.b0.add_(1).clone() * k0",
    "v1 = x0 + torch.rand_like(x0)",
    "x0.mul_(2)",
    returned=("v1", "x0", "v0"),
    modules={"b0": "torch.arange(3.0)"},
    numbers={"k0": "2.5"},
)


@pytest.mark.parametrize("form", ["tuple", *programs.FORMS])
def test_programs_are_the_same_after_a_load_elsewhere(form: programs.Form, loader: Loader) -> None:
    assert found(msgspec.structs.replace(STATE, form=form), loader=loader) == Finding("same")


class Changing(Loader):
    """A loader after which one call is seen otherwise."""

    def __init__(self, other: Loader, changes: Mapping[str, Any]) -> None:
        self.file = other.file
        self._other = other
        self._changes = changes

    def ask(self, program: Program, how: str) -> dict[str, Seen] | str:
        answer = self._other.ask(program, how)
        assert not isinstance(answer, str)
        return answer | {"call 2": replace(answer["call 2"], **self._changes)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"error": ("ValueError", "no")}, r"raises \('ValueError', 'no'\), not None"),
        ({"results": []}, r"returns \[\], not "),
        ({"memory": [0]}, r"shares memory as \[0\], not "),
        ({"drawn": b""}, "has drawn other random numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_a_load_changes_is_found(
    changes: Mapping[str, Any], says: str, loader: Loader
) -> None:
    finding = found(STATE, loader=Changing(loader, changes))
    assert finding.outcome == "wrong"
    assert re.match(f"loaded with model, call 2: {says}", finding.note)


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
