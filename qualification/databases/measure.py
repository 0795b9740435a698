"""What two processes find out about some entries, as lines of JSON.

`python -m qualification.databases.measure build SPEC FOLDER OUT` compiles every case, calls it and
saves it; `... load SPEC FOLDER OUT` loads what was saved, in a process that has built nothing. A
process may die of a case: each line is written at once, and says what is about to happen.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

import hotstart
from hotstart.errors import HotstartError
from qualification import proof, suites
from qualification.checking import checks_in_forks
from qualification.compare import Did, Inputs, Standard, difference, observe, unchanged
from qualification.databases import subjects
from qualification.databases.results import Outcome
from qualification.databases.subjects import Case, Skipped


class Log:
    """Lines of JSON that outlive the process."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def write(self, **line: Any) -> None:
        """Add a line."""
        with self._out.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def found(self, case: Case, outcome: Outcome, stage: str, note: str = "") -> None:
        """Add the outcome of a case."""
        self.write(entry=case.entry, case=case.label, outcome=outcome, stage=stage, note=note)


@dataclass(frozen=True)
class Saved:
    """A case beside its program's file, with what calls of it have to do wherever it is loaded."""

    case: Case
    standard: Standard
    expected: list[Did]


# --- build ----------------------------------------------------------------------------------------


def build(spec: dict[str, Any], folder: Path, log: Log) -> None:
    """Build, call and save the cases of some entries."""
    sys.path.insert(0, str(folder))
    options = hotstart.Options(compiler=spec["compiler"])
    # Modules that define operators import the database.
    with checks_in_forks("torch.testing._internal.common_methods_invocations"):
        for name in spec["entries"]:
            log.write(entry=name, begins=True)
            started = time.perf_counter()
            for case in subjects.cases(name, folder, few=spec["compiler"] != "op_by_op"):
                if isinstance(case, Skipped):
                    log.write(entry=name, case=case.label, outcome="skipped", note=case.reason)
                elif [name, case.label] not in spec["without"]:
                    log.write(entry=name, case=case.label, stage="build")
                    _build(case, options, folder, log)
            log.write(entry=name, seconds=time.perf_counter() - started)


def _build(case: Case, options: hotstart.Options, folder: Path, log: Log) -> None:
    """Compile a case, compare its calls and save it, as far as it goes."""
    exact = options.compiler == "op_by_op"
    try:
        expected, again = (_observed(case, case.called, case.example) for _ in range(2))
        other = _observed(case, case.called, case.example, seed=1)
    except Exception as error:  # noqa: BLE001  what eager does not do is no case
        log.found(case, "skipped", "call", f"eager raises {problem(error)}")
        return
    repeats = case.initialised and difference(again, expected, Standard()) is None
    random = difference(other, expected, Standard()) is not None
    standard = Standard(
        tolerance=0.0 if exact else None,
        values=repeats and (exact or not random),
    )
    stage = "build"
    try:
        program = hotstart.compile(
            case.called,
            case.example.args,
            case.example.kwargs,
            dynamic_shapes=case.dynamic_shapes,
            options=options,
        )
        if options.compiler == "inductor":
            shown = proof.of(program, f"{case.entry}, {case.label}")
            log.write(entry=case.entry, proof=msgspec.to_builtins(shown))
        stage = "call"
        calls = [expected, *_eager(case)]
        own = replace(standard, sharing=exact)
        found = _compared(case, program, calls, own)
        if not found and standard.values:
            twice = [_observed(case, program, case.example) for _ in range(2)]
            found = difference(*twice, Standard(sharing=False))
            found = found and f"a second call differs from the first: {found}"
        if not found:
            stage = "save"
            log.write(entry=case.entry, case=case.label, stage=stage)
            _save(program, Saved(case, standard, calls), folder)
    except _Unpicklable as error:
        log.found(case, "skipped", stage, str(error))
        return
    except Exception as error:  # noqa: BLE001  whatever is raised is an outcome
        _failed(case, error, stage, log)
        return
    log.found(case, "wrong" if found else "same", stage, found or "")


def _observed(case: Case, call: Callable[..., Any], given: Inputs, seed: int = 0) -> Did:
    """What a call does to a module whose tensors are as they were built."""
    with unchanged(case.holder):
        return observe(call, case.holder, given, seed)


class _Unpicklable(Exception):
    """A case that cannot be taken to another process."""


def _save(program: hotstart.Program, saved: Saved, folder: Path) -> None:
    file = folder / f"{len(list(folder.glob('*.hot')))}.hot"
    try:
        torch.save(saved, file.with_suffix(".pt"))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _Unpicklable(f"cannot be taken to another process: {problem(error)}") from error
    program.save(file)


def _eager(case: Case) -> list[Did]:
    """What eager does with the other inputs, until it raises."""
    found = []
    for other in case.others:
        try:
            found.append(_observed(case, case.called, other))
        except Exception:  # noqa: BLE001  what eager does not do is no case
            break
    return found


def _compared(
    case: Case, program: Callable[..., Any], expected: Sequence[Did], standard: Standard
) -> str | None:
    """How calls of a program differ from those of eager, in which call."""
    given = (case.example, *case.others)
    for number, (inputs, wanted) in enumerate(zip(given, expected, strict=False)):
        found = difference(_observed(case, program, inputs), wanted, standard)
        if found:
            which = "with the example" if number == 0 else f"with other inputs ({number})"
            return f"{which}: {found}"
    return None


def _failed(case: Case, error: Exception, stage: str, log: Log) -> None:
    typed = isinstance(error, HotstartError)
    if not typed:
        traceback.print_exc()
    log.found(case, "refused" if typed else "raw", stage, problem(error))


def problem(error: BaseException) -> str:
    """An error in a line that is not too long for a page."""
    return suites.problem(error)[:400]


# --- load -----------------------------------------------------------------------------------------


def load(spec: dict[str, Any], folder: Path, log: Log) -> None:
    """Load everything that was saved, and compare its calls."""
    sys.path.insert(0, str(folder))
    for file in sorted(folder.glob("*.hot"), key=lambda file: int(file.stem)):
        if file.stem in spec["done"]:
            continue
        saved: Saved = torch.load(file.with_suffix(".pt"), weights_only=False)
        case = saved.case
        if [case.entry, case.label] not in spec["without"]:
            log.write(entry=case.entry, case=case.label, stage="load")
            own = replace(saved.standard, sharing=spec["compiler"] == "op_by_op")
            try:
                program = hotstart.load(file, case.called)
                found = _compared(case, program, saved.expected, own)
            except Exception as error:  # noqa: BLE001  whatever is raised is an outcome
                _failed(case, error, "load", log)
            else:
                log.found(case, "wrong" if found else "same", "load", found or "")
        log.write(done=file.stem)


def main(step: str, spec: str, folder: str, out: str) -> None:
    """Run a step."""
    warnings.simplefilter("ignore")  # torch's samples use much that is deprecated
    torch.set_num_threads(1)
    steps = {"build": build, "load": load}
    steps[step](json.loads(Path(spec).read_text()), Path(folder), Log(Path(out)))


if __name__ == "__main__":
    # Under its own name, so that what is pickled here is found in the process that loads.
    from qualification.databases import measure

    measure.main(*sys.argv[1:])
