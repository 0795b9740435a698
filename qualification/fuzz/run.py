"""Compare random programs with eager mode: `python -m qualification.fuzz.run`.

A program is made from its seed and measured in a fork, since it may die there. What is wrong is
made shorter, and written as a script into `build/fuzz/`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec
import torch

from qualification.databases.results import OUTCOMES
from qualification.fuzz import children, generate, measure, programs, shrink
from qualification.fuzz.measure import Finding, Say
from qualification.fuzz.programs import Program
from qualification.fuzz.saved import Loader
from qualification.suites import ROOT, end, tell

FOUND = ROOT / "build" / "fuzz"

LIMIT_S = {"op_by_op": 120, "inductor": 400}
TRIES = {"op_by_op": 200, "inductor": 60}
"""Programs that are tried to make one shorter."""

TRIES_OF_SLOW = 8
"""Of one that is not done in time, so each may take as long."""


class Fuzzed(msgspec.Struct, frozen=True):
    """A seed's program, and what was found of it."""

    program: Program
    finding: Finding


def main() -> int:
    """Run what was asked for; the exit status says whether anything is wrong."""
    arguments = parse()
    loader = Loader() if arguments.saved else None
    warm(arguments.compiler)
    try:
        return _run(arguments, loader)
    finally:
        if loader:
            loader.close()


def _run(arguments: argparse.Namespace, loader: Loader | None) -> int:
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    until = time.monotonic() + arguments.seconds
    seed = arguments.seed
    while seed < arguments.seed + arguments.programs and time.monotonic() < until:
        found = fuzzed(seed, arguments.compiler, loader)
        finding = found.finding if isinstance(found, Fuzzed) else found
        counts[finding.outcome] += 1
        counts["proof"] += bool(finding.proof)
        if finding.outcome == "refused":
            refused[finding.note[: arguments.width]] += 1
            if arguments.refused and arguments.refused in finding.note:
                report(found, arguments, loader)
        if finding.proof:
            tell(f"{seed}: {finding.proof}")
        if finding.is_fault:
            tell(f"{seed}: {finding.outcome}: {finding.note}")
            report(found, arguments, loader)
        seed += 1
        if (seed - arguments.seed) % 100 == 0:
            tell(summary(arguments.seed, seed, counts))
    tell(summary(arguments.seed, seed, counts))
    for note, number in refused.most_common():
        tell(f"  {number}: {note}")
    return int(any(counts[outcome] for outcome in measure.FAULTS))


def summary(first: int, end: int, counts: Counter[str]) -> str:
    """How many programs came out how."""
    outcomes = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
    proven = f"{counts['proof']} with pieces that run op by op or without a pass"
    return f"seeds {first} to {end - 1}: {', '.join((*outcomes, proven))}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="qualification.fuzz.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--programs", type=int, default=10**9, help="how many at most")
    parser.add_argument("--seconds", type=float, default=300, help="begin none after that")
    parser.add_argument("--compiler", choices=("op_by_op", "inductor"), default="op_by_op")
    parser.add_argument("--saved", action="store_true", help="also after a load elsewhere")
    parser.add_argument("--refused", metavar="TEXT", help="make these refusals shorter, too")
    parser.add_argument("--width", type=int, default=160, help="of refusals that are listed")
    return parser.parse_args()


def warm(compiler: str) -> None:
    """Import in this process what forks need, and compile a first program."""
    torch.set_num_threads(1)
    x = programs.Input("x0", "float32", ("m",))
    call = programs.Call({"m": 3})
    first = Program(0, {"m": (2, 4)}, (x,), {}, ("v0 = x0 + 1",), ("v0",), (call,))
    finding = measure.measure(first, compiler, lambda stage: None)
    if finding.outcome != "same":
        raise RuntimeError(f"{programs.source(first)} is not as in eager mode: {finding}")


def fuzzed(seed: int, compiler: str, loader: Loader | None = None) -> Fuzzed | Finding:
    """Generate and measure the program of a seed; a finding where generating fails."""

    def generated(say: Say) -> Program:
        say("start")
        return generate.generate(seed)

    program = children.in_child(generated, Program, LIMIT_S["op_by_op"])
    if not isinstance(program, Program):
        return Finding("skipped", f"not generated: {program.note}")
    return Fuzzed(program, found_of(program, compiler, loader))


def found_of(program: Program, compiler: str, loader: Loader | None) -> Finding:
    """What a fork finds of a program."""
    if loader:
        loader.start()
    find = partial(measure.measure, program, compiler, loader=loader)
    finding = children.in_child(find, Finding, LIMIT_S[compiler])
    if loader and finding.outcome in ("slow", "crash"):
        loader.end()  # it may still be busy
    return finding


def report(found: Fuzzed | Finding, arguments: argparse.Namespace, loader: Loader | None) -> Path:
    """Make a program shorter, and write it as a script."""
    assert isinstance(found, Fuzzed)
    compiler = arguments.compiler
    tries = TRIES_OF_SLOW if found.finding.outcome == "slow" else TRIES[compiler]
    program, finding = shrink.shrunk(
        found.program, found.finding, lambda other: found_of(other, compiler, loader), tries
    )
    FOUND.mkdir(parents=True, exist_ok=True)
    file = FOUND / f"{compiler}_{program.seed}.py"
    file.write_text(programs.script(program, compiler, finding.note.replace("\\", "/")))
    tell(f"{file}: {finding.outcome}: {finding.note}")
    tell(programs.source(program).partition("from torch import nn\n")[2].strip())
    tell(f"  {program.axes} {program.inputs} {program.calls} {program.split_on}")
    return file


if __name__ == "__main__":
    end(main)
