"""Starts with a cache, each in a process of its own, and compared with the model itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

import hotstart
from qualification.reliability import forks
from tests.integration import changing

Compiler = Literal["inductor", "op_by_op"]

CASES = ("plain", "double", "deep")
"""Three programs: the first two have one key and the same pieces, and differ in their results."""


@dataclass(frozen=True)
class Start:
    """A start that is to be made.

    Attributes:
        place: the folder of the cache.
        case: one of `CASES`.
        compiler: by what it is compiled.
        extra_key: makes it another program for the cache.
        check: whether a program is checked before it is kept.
        policy: what to do where nothing is found.
    """

    place: Path
    case: str
    compiler: Compiler = "op_by_op"
    extra_key: str = ""
    check: bool = False
    policy: Literal["build", "require"] = "build"


@dataclass(frozen=True)
class Did:
    """What came of a start.

    Attributes:
        error: what it raised; empty if it went well.
        right: whether the results are those of the model: bit by bit, but for Inductor.
        actions: what was done for the pieces: `loaded`, `compiled`, `reused`.
    """

    error: str
    right: bool = False
    actions: tuple[str, ...] = ()

    @property
    def loaded(self) -> bool:
        """Whether the program was found."""
        return "loaded" in self.actions and not self.compiled

    @property
    def compiled(self) -> bool:
        """Whether any piece of it was compiled."""
        return "compiled" in self.actions


def start_all(starts: Sequence[Start]) -> list[Did]:
    """What comes of starts that are made at once, each in a child of this process."""
    told = forks.answers([partial(_start, start) for start in starts])
    return [Did("it died") if one is None else Did(one[0], one[1], tuple(one[2])) for one in told]


def start(wanted: Start) -> Did:
    """What comes of a start that is made in a child of this process."""
    return start_all([wanted])[0]


def start_cases(
    place: Path, compiler: Compiler = "op_by_op", cases: Sequence[str] = CASES
) -> list[Did]:
    """Start every case, one after the other."""
    return [start(Start(place, case, compiler)) for case in cases]


def warm(compiler: Compiler = "op_by_op") -> None:
    """Import what starts need, so that children have it. No kernel is loaded by that."""
    logging.getLogger("hotstart").setLevel(logging.ERROR)  # every fault is a warning
    torch.set_num_threads(1)
    if compiler == "inductor":
        from hotstart.compilers.inductor import compiler as inductor  # noqa: F401
    with torch.no_grad():
        hotstart.compile(nn.Linear(2, 2), (torch.ones(1, 2),), options=_options("op_by_op"))


def put_away_programs(place: Path) -> None:
    """Remove all programs of a cache, so that starts make them of pieces."""
    folder = hotstart.Store(place).folder
    for stored in list(folder.files()):
        if stored.kind != "pieces":
            folder.remove(stored.kind, stored.name)


def _start(wanted: Start) -> tuple[str, bool, list[str]]:
    os.environ.pop("HOTSTART_TEST_DOUBLE", None)
    if wanted.case == "double":
        os.environ["HOTSTART_TEST_DOUBLE"] = "1"
    model, x = _model(wanted.case), torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    try:
        program = hotstart.compile(
            model,
            (x,),
            cache=hotstart.Store(
                wanted.place,
                check=wanted.check,
                policy=wanted.policy,
                extra_key=wanted.extra_key,
            ),
            options=_options(wanted.compiler),
        )
        with torch.no_grad():
            found, expected = program(x), model(x)
    except Exception as error:  # noqa: BLE001  what fails a start is what is looked for
        return repr(error), False, []
    right = torch.equal(found, expected)
    if wanted.compiler == "inductor":
        right = torch.allclose(found, expected, atol=1e-6)
    return "", right, sorted({unit.action for unit in program.report.units})


def _model(case: str) -> nn.Module:
    torch.manual_seed(0)
    model = changing.Changing()
    if case == "deep":
        model.layers.append(changing.Layer(model.config))
    return model.eval()


def _options(compiler: Compiler) -> hotstart.Options:
    return hotstart.Options(compiler=compiler)
