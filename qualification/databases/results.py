"""What is known of every entry, and the file it is kept in."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec

from qualification import suites
from qualification.proof import Proof

Outcome = Literal["same", "refused", "wrong", "raw", "crash", "slow", "skipped"]

OUTCOMES: Mapping[Outcome, str] = {
    "same": "equal to eager, as built and as loaded",
    "refused": "a typed error that says what to do",
    "wrong": "another result than eager's",
    "raw": "an exception that is no `HotstartError`, where eager raises none",
    "crash": "the process died",
    "slow": "not done within the limit",
    "skipped": "says nothing about hotstart, with the reason",
}
"""In the order of the page."""

FAULTS: tuple[Outcome, ...] = ("wrong", "raw", "crash", "slow")


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of a case.

    Attributes:
        case: its label, such as `float32 0 in place`.
        outcome: see `OUTCOMES`.
        stage: `"build"`, `"call"`, `"save"` or `"load"`.
        note: the error's class and first line, or the first difference.
    """

    case: str
    outcome: Outcome
    stage: str = ""
    note: str = ""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of an entry.

    Attributes:
        name: of the entry.
        database: `"operators"`, `"modules"` or `"examples"`.
        same: how many of its cases are equal.
        others: the other cases.
        seconds: how long they took to build.
        proof: what comparing their units with operators has shown; None op by op.
    """

    name: str
    database: str
    same: int = 0
    others: tuple[Finding, ...] = ()
    seconds: float = 0.0
    proof: Proof | None = None

    def outcomes(self) -> Counter[Outcome]:
        """How many cases have each outcome."""
        found: Counter[Outcome] = Counter(finding.outcome for finding in self.others)
        found["same"] += self.same
        return found


class Results(msgspec.Struct, frozen=True):
    """What was found of all entries, by compiler, under one set of versions."""

    versions: dict[str, str]
    compilers: dict[str, list[Result]]


def verdict(results: Iterable[Result]) -> int:
    """The exit status: 1 if a result is wrong or an error is untyped."""
    return int(any(result.outcomes()[fault] for result in results for fault in FAULTS))


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"torch": version("torch").partition("+")[0], "Python": python}


def read(file: Path) -> dict[str, dict[str, Result]]:
    """By compiler and name, the results that were found under the versions of this process."""
    if not file.exists():
        return {}
    kept = msgspec.json.decode(file.read_bytes(), type=Results)
    if kept.versions != versions():
        return {}
    return {c: {r.name: r for r in results} for c, results in kept.compilers.items()}


def write(file: Path, known: Mapping[str, Mapping[str, Result]]) -> None:
    """Keep results with the versions of this process."""
    compilers = {c: [r[name] for name in sorted(r)] for c, r in sorted(known.items())}
    suites.keep(file, Results(versions(), compilers))
