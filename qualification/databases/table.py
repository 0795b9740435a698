"""Results as the page `docs/databases.md`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from textwrap import fill

from qualification import proof
from qualification.databases.results import FAULTS, OUTCOMES, Finding, Outcome, Result

EXPLANATION = """\
PyTorch tests itself with databases: `op_db` has sample inputs for every operator, `module_db` for
every module of `torch.nn`, and `torch._export.db` has programs that are hard to capture. Every
entry is compiled, called, saved with its check, and loaded in a process that has built nothing.
`make databases` makes this page anew; what it found is in [databases.json](databases.json).

- **Operators**: the first and the last sample in float32 (or the first dtype there is), and one
  each in int64, bool and complex64; in-place and `out=` variants of the first sample; and one
  sample with a dynamic leading dimension, called with three sizes, where eager takes them.
  An operator that only makes a tensor is a function with an argument that it does not use.
- **Modules**: three samples, and one in training where that makes a difference. Lazy modules are
  called once before.
- **Examples**: the example inputs.
- Each is called with the example, with other values of the same shapes, and once more with the
  example. Values are compared bit for bit (NaN equals NaN), and so are dtypes, shapes, arguments
  and weights after the call, and which arguments a result shares memory with.
- Numbers drawn at random are compared after the same seed. Not compared are the values of memory
  that is not initialised (`torch.empty` and its like), and of operators that do not repeat
  themselves in eager.
- The check at save is the one that `Program.save` runs, in forks of a process that has imported
  torch and nothing else, since that import is most of its time.
- **With Inductor**: of all entries, sorted by database and name, every tenth; the first sample
  only, in two dtypes. Values have to agree within 1e-4, relative and absolute (float16 1e-2,
  bfloat16 2e-2, float64 1e-6); numbers drawn at random only in dtype and shape.
"""

_TITLES = {"op_by_op": "Op by op", "inductor": "With Inductor"}
_DATABASES = ("operators", "modules", "examples")


def counted(results: Iterable[Result]) -> dict[Outcome, int]:
    """How many cases have each outcome."""
    found: Counter[Outcome] = sum((r.outcomes() for r in results), Counter())
    return {outcome: found[outcome] for outcome in OUTCOMES}


def page(
    known: Mapping[str, Mapping[str, Result]],
    versions: Mapping[str, str],
    databases: Mapping[str, str],
) -> str:
    """The page, in Markdown; `databases` names every entry there is."""
    blocks = ["# Databases", _summary(known, versions, len(databases)), EXPLANATION.rstrip()]
    for compiler, title in _TITLES.items():
        results = list(known.get(compiler, {}).values())
        if results:
            blocks += [f"## {title}", "\n".join(_counts(results))]
            blocks += ["### Faults", "\n".join(_faults(results)) or "None."]
            blocks += _proof(results)
            blocks += ["### Refused", "\n".join(_reasons(results, "refused")) or "None."]
            blocks += ["### Skipped", "\n".join(_reasons(results, "skipped")) or "None."]
    return "\n\n".join(blocks) + "\n"


def _proof(results: Iterable[Result]) -> Iterator[str]:
    proofs = [result.proof for result in results if result.proof]
    if proofs:
        yield "### Proof"
        yield (
            "What comparing every unit with its operators has shown "
            "([how](adr/0021-units-are-proven-against-their-operators.md)):"
        )
        yield proof.text(proof.together(proofs))


def _summary(
    known: Mapping[str, Mapping[str, Result]], versions: Mapping[str, str], entries: int
) -> str:
    under = ", ".join(f"{name} {number}" for name, number in versions.items())
    said = []
    for compiler, title in _TITLES.items():
        results = known.get(compiler, {}).values()
        if results:
            cases = counted(results)
            wrong = sum(cases[fault] for fault in FAULTS)
            said.append(
                f"{title}: {cases['same']} cases of {len(results)} entries equal eager, "
                f"{cases['refused']} are refused with a typed error, {wrong} are faults."
            )
    return fill(f"Under {under}, of {entries} entries. " + " ".join(said), width=100)


def _counts(results: list[Result]) -> Iterator[str]:
    yield f"| | {' | '.join(_DATABASES)} | |"
    yield "| --- | ---: | ---: | ---: | --- |"
    own = {d: [r for r in results if r.database == d] for d in _DATABASES}
    yield f"| entries | {' | '.join(str(len(own[d])) for d in _DATABASES)} | |"
    for outcome, meaning in OUTCOMES.items():
        numbers = " | ".join(str(counted(own[d])[outcome]) for d in _DATABASES)
        yield f"| {outcome} | {numbers} | {meaning} |"


def _faults(results: Iterable[Result]) -> Iterator[str]:
    for result in results:
        for note, findings in _by_note(result, FAULTS).items():
            cases = ", ".join(finding.case for finding in findings)
            first = findings[0]
            stage = f" ({first.stage})" if first.stage else ""
            yield f"- **{result.name}**, {cases}: {first.outcome}{stage}: {note}"


def _by_note(result: Result, outcomes: Iterable[Outcome]) -> dict[str, list[Finding]]:
    wanted = tuple(outcomes)
    found: dict[str, list[Finding]] = {}
    for finding in result.others:
        if finding.outcome in wanted:
            found.setdefault(_plain(finding.note), []).append(finding)
    return found


def _reasons(results: Iterable[Result], outcome: Outcome) -> Iterator[str]:
    """Every reason, with how many cases have it and of which entries; the frequent ones first."""
    count: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    for result in results:
        for note, findings in _by_note(result, (outcome,)).items():
            count[note] += len(findings)
            names.setdefault(note, []).append(result.name)
    for note, number in sorted(count.items(), key=lambda item: (-item[1], item[0])):
        yield f"- {number}: {note.rstrip('.')}. Of {', '.join(f'`{n}`' for n in names[note])}."


def _plain(note: str) -> str:
    """A note without what differs from run to run, and safe in Markdown."""
    short = re.sub(r"[0-9a-f]{64}", "...", note)
    short = re.sub(r"/\S*/(?=[^/\s]+)", "", short)
    return " ".join(short.replace("|", "\\|").replace("*", "\\*").split())[:240]
