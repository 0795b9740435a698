"""Take torch's databases through compile, save and load: `python -m qualification.databases.run`.

Entries run in batches, each in two processes: one builds and saves, one that has built nothing
loads. A process that dies or does not go on for a while is started again without the case that it
was at. Results are kept after every batch; a run that was interrupted goes on with `--missing`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from qualification import proof
from qualification.databases import results, subjects, table
from qualification.databases.results import Finding, Outcome, Result
from qualification.proof import Proof
from qualification.suites import ROOT, end, process, require_known, tell

KEPT = ROOT / "docs" / "databases.json"
PAGE = ROOT / "docs" / "databases.md"
LOGS = ROOT / "build" / "databases"

BATCH = 60
LIMIT_S = {"op_by_op": 120, "inductor": 400}
"""A process that says nothing for so long is ended, and the case it was at is slow."""

TENTH = 10
"""With Inductor, of all entries sorted by database and name, those whose number ends in 0."""


def main() -> int:
    """Run what was asked for; the exit status says whether anything of it is wrong."""
    arguments = parse()
    compiler = "inductor" if arguments.inductor else "op_by_op"
    known = {} if arguments.no_page else results.read(KEPT)
    found = known.setdefault(compiler, {})
    databases = subjects.names()
    wanted = select(databases, arguments, found)
    if arguments.list:
        print("\n".join(f"{databases[name]}: {name}" for name in wanted))
        return 0
    shown: dict[str, Result] = {}
    for at in range(0, len(wanted), arguments.batch):
        batch = wanted[at : at + arguments.batch]
        started = time.perf_counter()
        made = {r.name: r for r in measured(batch, databases, compiler)}
        shown |= made
        for result in made.values():
            for finding in result.others:
                if finding.outcome in results.FAULTS or arguments.only:
                    tell(f"  {line(result.name, finding)}")
        tell(f"[{at + len(batch)}/{len(wanted)}] ({time.perf_counter() - started:.0f} s)")
        if not arguments.no_page:
            found |= made
            results.write(KEPT, known)
            PAGE.write_text(table.page(known, results.versions(), databases))
    counted = table.counted(shown.values())
    tell(", ".join(f"{number} {outcome}" for outcome, number in counted.items() if number))
    return results.verdict(shown.values())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="qualification.databases.run", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these entries")
    parser.add_argument(
        "--database", choices=("operators", "modules", "examples"), help="the entries of one"
    )
    parser.add_argument("--inductor", action="store_true", help="a tenth, with Inductor")
    parser.add_argument("--all", action="store_true", help="with --inductor, not only a tenth")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th, from the I-th")
    parser.add_argument("--missing", action="store_true", help="those without a result")
    parser.add_argument(
        "--again",
        nargs="+",
        choices=results.OUTCOMES,
        metavar="OUTCOME",
        help="those with a case that came out so, such as: --again wrong raw refused",
    )
    parser.add_argument("--batch", type=int, default=BATCH, help="how many entries a process")
    parser.add_argument("--list", action="store_true", help="say which would run")
    parser.add_argument("--no-page", action="store_true", help="keep no results, write no page")
    return parser.parse_args()


def select(
    databases: Mapping[str, str], arguments: argparse.Namespace, known: Mapping[str, Result]
) -> list[str]:
    """The names of the entries that are to run."""
    names = list(databases)
    require_known(arguments.only or (), names)
    if arguments.only:
        return list(arguments.only)
    taken = names[::TENTH] if arguments.inductor and not arguments.all else names
    first, _, of = arguments.shard.partition("/")
    taken = taken[int(first) - 1 :: int(of)]
    if arguments.missing:
        taken = [name for name in taken if name not in known]
    if arguments.again:
        taken = [n for n in taken if n in known and _came_out(known[n], arguments.again)]
    return [name for name in taken if arguments.database in (None, databases[name])]


def _came_out(result: Result, outcomes: Sequence[Outcome]) -> bool:
    return any(result.outcomes()[outcome] for outcome in outcomes)


def measured(batch: Sequence[str], databases: Mapping[str, str], compiler: str) -> Iterator[Result]:
    """What two processes find of some entries."""
    with tempfile.TemporaryDirectory(prefix="hotstart-databases-") as folder:
        gathered = Gathered()
        run_step("build", batch, compiler, Path(folder), gathered)
        run_step("load", batch, compiler, Path(folder), gathered)
    for name in batch:
        yield gathered.result(name, databases[name])


@dataclass
class Gathered:
    """What the lines of some processes say.

    Attributes:
        findings: the last one of each (entry, case), which is that of the last stage.
        seconds: of each entry.
        begun: entries that a process began with.
        done: programs that were loaded.
        proofs: what comparing units has shown, by entry.
        at: the (entry, case, stage) that the process is at.
    """

    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    at: tuple[str, str, str] = ("", "", "")
    proofs: dict[str, list[Proof]] = field(default_factory=dict)

    def take(self, lines: Iterable[str]) -> None:
        """Read what a process wrote."""
        for text in lines:
            said = json.loads(text)
            entry, case = said.get("entry", ""), said.get("case", "")
            if "done" in said:
                self.done.append(said["done"])
            elif "seconds" in said:
                self.seconds[entry] = self.seconds.get(entry, 0.0) + said["seconds"]
            elif "proof" in said:
                shown = msgspec.convert(said["proof"], Proof)
                self.proofs.setdefault(entry, []).append(shown)
            elif "begins" in said:
                self.begun.append(entry)
                self.at = (entry, "", "build")
            elif "outcome" in said:
                stage = said.get("stage", "")
                self.findings[entry, case] = Finding(case, said["outcome"], stage, said["note"])
            else:
                self.at = (entry, case, said["stage"])

    def result(self, name: str, database: str) -> Result:
        """What is known of an entry; what was saved and never loaded is not the same."""
        own = [f for (entry, _), f in self.findings.items() if entry == name]
        through = [f for f in own if (f.outcome, f.stage) == ("same", "load")]
        lost = [f for f in own if f.outcome == "same" and f not in through]
        return Result(
            name,
            database,
            same=len(through),
            others=(
                *(f for f in own if f.outcome != "same"),
                *(Finding(f.case, "crash", "load", "was never loaded") for f in lost),
            ),
            seconds=round(self.seconds.get(name, 0.0), 1),
            proof=proof.together(self.proofs[name]) if name in self.proofs else None,
        )


def run_step(
    step: str, batch: Sequence[str], compiler: str, folder: Path, gathered: Gathered
) -> None:
    """Run a step of `measure` until it is through; again without a case that it died of."""
    without: list[list[str]] = []
    left = list(batch)
    while True:
        spec = {"entries": left, "compiler": compiler, "without": without, "done": gathered.done}
        problem = one_process(step, spec, folder, gathered)
        if not problem:
            return
        entry, case, stage = gathered.at
        outcome = "slow" if problem.startswith("said nothing") else "crash"
        gathered.findings[entry, case] = Finding(case, outcome, stage, problem)
        if not case or [entry, case] in without:
            tell(f"{step} does not get past {entry} {case}: {problem}")
            return
        without.append([entry, case])
        if step == "build":
            left = left[left.index(gathered.begun[-1]) :]


def one_process(step: str, spec: dict[str, Any], folder: Path, gathered: Gathered) -> str | None:
    """Run a process and gather what it finds; what went wrong, if it did not end well."""
    out = folder / f"{step}.jsonl"
    out.write_text("")
    asked = folder / f"{step}.json"
    asked.write_text(json.dumps(spec))
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{step}-{spec['compiler']}.log"
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src", folder))),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    words = command(step, asked, folder, out)
    with log.open("ab") as said, process(words, variables, said) as started:
        status = followed(started, out, LIMIT_S[spec["compiler"]])
    gathered.take(out.read_text().splitlines())
    if status is None:
        return f"said nothing for {LIMIT_S[spec['compiler']]} s"
    return f"died with status {status}" if status else None


def command(step: str, asked: Path, folder: Path, out: Path) -> list[str]:
    """What is run for a step: it reads what is asked of it, and writes what it finds to `out`."""
    module = "qualification.databases.measure"
    return [sys.executable, "-m", module, step, str(asked), str(folder), str(out)]


def followed(process: subprocess.Popen[bytes], out: Path, limit_s: float) -> int | None:
    """The exit status of a process; None if it wrote nothing for a while."""
    size, since = -1, time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(1)
        now = out.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > limit_s:
            return None


def line(name: str, finding: Finding) -> str:
    """A finding in a line, for people who wait."""
    return f"{name}, {finding.case}: {finding.outcome} ({finding.stage}): {finding.note}"


if __name__ == "__main__":
    end(main)
