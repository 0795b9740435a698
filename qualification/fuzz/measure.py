"""Find out about one program: eager mode first, then hotstart, call by call."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import hotstart
from hotstart.errors import HotstartError
from qualification import suites
from qualification.compare import Did, Inputs, Standard, difference, observe, unchanged
from qualification.databases.results import FAULTS, Outcome
from qualification.fuzz import noise, programs, saved, seen
from qualification.fuzz.programs import Program
from qualification.fuzz.saved import Loader

ASSERTED = "as the model needs it"
"""What errors say of a number that depends on data and is not as the graph assumes."""


DRAWS = re.compile(r"torch\.rand|dropout")
"""Lines that draw random numbers, which are not eager's with Inductor."""


class Finding(msgspec.Struct, frozen=True):
    """What was found of a program.

    Attributes:
        outcome: see `qualification.databases.results.OUTCOMES`.
        note: the error's class and first line, or the first difference.
        call: the number of the call, where it is one's.
        proof: pieces that run op by op or without a pass, since they were wrong.
    """

    outcome: Outcome
    note: str = ""
    call: int | None = None
    proof: tuple[str, ...] = ()

    @property
    def is_fault(self) -> bool:
        """Whether it should not be so."""
        return self.outcome in FAULTS

    def is_like(self, other: Finding) -> bool:
        """Tell whether two findings are likely the same fault."""
        alike = self.outcome == other.outcome
        return alike and (self.outcome != "raw" or self.note[:40] == other.note[:40])


Say = Callable[[str], None]
"""Takes the stage that comes next, as a process may die in it."""


def measure(program: Program, compiler: str, say: Say, loader: Loader | None = None) -> Finding:
    """Compare a program with eager mode; and with itself after a load, if there is a loader."""
    warnings.simplefilter("ignore")
    say("eager")
    model = programs.model(program)
    calls = dict(_in_eager(program, model))
    if 0 not in calls:
        return Finding("skipped", "eager refuses the example")
    given = [programs.arguments(program, call) for call in program.calls]
    if difference(_observed(model, model, given[0]), calls[0], Standard()):
        return Finding("skipped", "eager does not repeat itself")
    say("build")
    refused = None
    at: int | None = None
    proof: tuple[str, ...] = ()
    try:
        built = hotstart.compile(
            model,
            given[0].args,
            given[0].kwargs,
            dynamic_shapes=programs.dynamic_shapes(program),
            split_on=list(program.split_on),
            options=hotstart.Options(compiler=compiler, jobs=1),  # type: ignore[arg-type]
        )
        report = built.report
        proof = tuple(": ".join(line) for line in (*report.op_by_op, *report.without))
        for at, expected in calls.items():
            say(f"call {at}")
            try:
                found = _observed(built, model, given[at])
            except HotstartError as error:
                refused = refused or Finding("refused", f"call: {suites.problem(error)}", at, proof)
                continue
            except RuntimeError as error:
                if ASSERTED not in str(error):
                    raise
                refused = refused or Finding("refused", f"call: {suites.problem(error)}", at, proof)
                continue
            # What is copied into another layout shares no memory, has other strides, and is read in
            # another order.
            plain = Standard(values=False, sharing=not built.relayouts)
            problem = difference(found, expected, plain)
            if not built.relayouts:
                problem = problem or _strides(found, expected)
            draws = compiler != "op_by_op" and DRAWS.search(programs.source(program))
            if not problem and not draws and difference(found, expected, Standard(sharing=False)):
                if compiler == "op_by_op" and not built.relayouts:
                    problem = _exactly(found, expected)
                else:
                    problem = _but_for_rounding(program, model, given[at], found, expected)
            if problem:
                return Finding("wrong", problem, at, proof)
        at = None
        if compiler == "op_by_op":
            say("odd calls")
            if problem := _oddly(built, program, model):
                return Finding("wrong", problem, None, proof)
        say("save")
        if loader and (problem := saved.problem(built, program, model, loader)):
            return Finding("wrong", problem, None, proof)
    except HotstartError as error:
        return Finding("refused", suites.problem(error), at)
    except Exception as error:  # noqa: BLE001  whatever is raised is an outcome
        traceback.print_exc()
        return Finding("raw", suites.problem(error), at, proof)
    return refused or Finding("same", proof=proof)


def _oddly(built: hotstart.Program, program: Program, model: nn.Module) -> str | None:
    """How calls with odd arguments differ from eager mode's, where the program takes them."""
    given = seen.calls(program)
    in_eager = dict(seen.seen(model, model, given))
    for name, inputs in given.items():
        copies = sum(built.relayouts.values())
        ((_, found),) = seen.seen(built, model, {name: inputs})
        expected = in_eager[name]
        if found.did is None or sum(built.relayouts.values()) > copies:
            continue  # refused; or read in another order
        if expected.did is None:
            return f"{name}: returns, where eager raises {expected.error}"
        if problem := _exactly(found.did, expected.did) or _strides(found.did, expected.did):
            return f"{name}: {problem}"
        if found.drawn != expected.drawn:
            return f"{name}: has drawn other random numbers"
    return None


def _in_eager(program: Program, model: nn.Module) -> Iterator[tuple[int, Did]]:
    """What eager mode does, by the number of the call; calls that it refuses are left out."""
    for at, call in enumerate(program.calls):
        try:
            yield at, _observed(model, model, programs.arguments(program, call))
        except Exception:  # noqa: BLE001  what eager does not do is no call
            continue


def _observed(called: Callable[..., Any], model: nn.Module, given: Inputs) -> Did:
    with unchanged(model):
        return observe(
            lambda *args, **kwargs: programs.plain(called(*args, **kwargs)), model, given
        )


def _tensors(did: Did) -> list[tuple[str, Tensor]]:
    """All tensors that a call made or may have changed."""
    groups = {
        "result": pytree.tree_leaves(did.returned),
        "argument": did.inputs,
        "weight": did.state,
    }
    return [
        (f"{kind} {at}", tensor)
        for kind, tensors in groups.items()
        for at, tensor in enumerate(tensors)
        if isinstance(tensor, Tensor)
    ]


def _exactly(found: Did, expected: Did) -> str | None:
    """How numbers of a call differ at all."""
    return difference(found, expected, Standard(0.0, sharing=False))


def _strides(found: Did, expected: Did) -> str | None:
    """How strides of results differ, where there are several elements along them."""
    pairs = zip(_tensors(found), _tensors(expected), strict=True)
    for (name, one), (_, other) in pairs:
        if other.numel() and _strides_of(one) != _strides_of(other):
            return f"{name} has strides {one.stride()}, eager has {other.stride()}"
    return None


def _strides_of(tensor: Tensor) -> list[int]:
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [stride for size, stride in pairs if size > 1]


def _but_for_rounding(
    program: Program, model: nn.Module, given: Inputs, found: Did, expected: Did
) -> str | None:
    """How numbers of a call differ more than rounding explains."""
    runs = [expected]
    for seed in range(noise.RUNS):
        noisy = partial(noise.with_rounding, model, seed)
        runs.append(_observed(noisy, model, given))
    overflows = "float16" in str(program.inputs) or "half" in programs.source(program)
    for at, (name, tensor) in enumerate(_tensors(found)):
        wrong = noise.wrong(tensor, [_tensors(run)[at][1] for run in runs], overflows)
        if wrong.any():
            where = tuple(int(place) for place in wrong.nonzero()[0])[: tensor.ndim]
            values = tensor[where].item(), _tensors(expected)[at][1][where].item()
            return (
                f"{name} differs in {int(wrong.sum())} of {tensor.numel()} values: "
                f"{values[0]} where eager has {values[1]}"
            )
    return None
