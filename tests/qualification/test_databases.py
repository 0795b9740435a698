"""The runner over torch's databases: its cases, what it compares, gathers and writes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline
from torch import Tensor, nn

from qualification.compare import Inputs
from qualification.databases import measure, results, run, subjects, table
from qualification.databases.measure import Log
from qualification.databases.results import Finding, Result
from qualification.databases.subjects import Case, Skipped
from qualification.proof import Proof

SHARDS = 24


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def labels(found: list[Case | Skipped]) -> list[str]:
    return [case.label for case in found if isinstance(case, Case)]


class Tagged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def case(called: nn.Module, *args: Any) -> Case:
    return Case("tagged", "float32 0", called, "", Inputs(args))


class TestCases:
    @pytest.mark.thorough
    def test_an_operator_has_samples_variants_dtypes_and_sizes(self, folder: Path) -> None:
        found = labels(list(subjects.cases("mul", folder, few=False)))
        assert [re.sub(r" [1-9][0-9]*", " N", label) for label in found] == [
            "float32 0",
            "float32 0 in place",
            "float32 0 out",
            "float32 N",
            "float32 N dynamic",
            "int64 0",
            "bool 0",
            "complex64 0",
        ]

    def test_few_are_the_first_sample_in_two_dtypes(self, folder: Path) -> None:
        assert labels(list(subjects.cases("mul", folder, few=True))) == ["float32 0", "int64 0"]

    def test_arguments_that_are_no_tensors_are_in_the_source(self, folder: Path) -> None:
        first = next(iter(subjects.cases("nn.functional.softplus", folder, few=True)))
        assert isinstance(first, Case)
        assert all(isinstance(argument, Tensor) for argument in first.example.args)
        assert "op(t0, beta=" in (folder / "case_nn_functional_softplus.py").read_text()

    def test_every_entry_has_a_database(self) -> None:
        assert set(subjects.names().values()) == {"operators", "modules", "examples"}


class TestMeasure:
    def outcomes(self, called: nn.Module, tmp_path: Path, *args: Any) -> list[list[str]]:
        out = tmp_path / "out"
        measure._build(
            case(called, *args), measure.hotstart.Options(compiler="op_by_op"), tmp_path, Log(out)
        )
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        return [[line["outcome"], line["stage"]] for line in lines if "outcome" in line]

    def test_what_eager_refuses_is_no_case(self, tmp_path: Path) -> None:
        class Raises(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise ValueError("no")

        assert self.outcomes(Raises(), tmp_path, torch.ones(2)) == [["skipped", "call"]]

    def test_a_typed_error_is_a_refusal(self, tmp_path: Path) -> None:
        class Breaks(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                torch._dynamo.graph_break()
                return x + 1

        assert self.outcomes(Breaks(), tmp_path, torch.ones(2)) == [["refused", "build"]]

    def test_another_error_is_raw(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measure.hotstart, "compile", lambda *args, **kwargs: 1 / 0)

        assert self.outcomes(Tagged(), tmp_path, torch.ones(2)) == [["raw", "build"]]

    def test_another_result_is_wrong(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measure.hotstart, "compile", lambda *args, **kwargs: torch.neg)

        assert self.outcomes(Tagged(), tmp_path, torch.ones(2)) == [["wrong", "call"]]


class TestGathered:
    def gathered(self, *lines: dict[str, Any]) -> run.Gathered:
        found = run.Gathered()
        found.take(map(json.dumps, lines))
        return found

    def test_the_last_stage_counts(self) -> None:
        said = {"entry": "add", "case": "float32 0", "outcome": "same", "note": ""}
        found = self.gathered({**said, "stage": "save"}, {**said, "stage": "load"})

        assert found.result("add", "operators") == Result("add", "operators", same=1)

    def test_what_comparing_units_shows_adds_up(self) -> None:
        one = {"units": 1, "proven": 1, "sizes": 4}
        two = {"units": 2, "op_by_op": ["add, float32 1: piece_0: differs"]}
        found = self.gathered({"entry": "add", "proof": one}, {"entry": "add", "proof": two})

        proof = found.result("add", "operators").proof
        assert proof == Proof(3, 1, 4, op_by_op=("add, float32 1: piece_0: differs",))

    def test_what_was_never_loaded_is_a_fault(self) -> None:
        said = {"entry": "add", "case": "float32 0", "outcome": "same", "note": "", "stage": "save"}

        assert results.verdict([self.gathered(said).result("add", "operators")]) == 1

    def test_a_process_that_dies_is_started_without_the_case(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        specs = []

        def dies_once(step: str, spec: Any, folder: Path, gathered: run.Gathered) -> str | None:
            specs.append(spec)
            gathered.take([json.dumps({"entry": "add", "begins": True})])
            gathered.take([json.dumps({"entry": "add", "case": "bool 0", "stage": "build"})])
            return "died with status -11" if len(specs) == 1 else None

        monkeypatch.setattr(run, "one_process", dies_once)
        found = run.Gathered()
        run.run_step("build", ["T", "add", "sub"], "op_by_op", tmp_path, found)

        assert specs[1]["entries"] == ["add", "sub"]
        assert specs[1]["without"] == [["add", "bool 0"]]
        assert found.result("add", "operators").others == (
            Finding("bool 0", "crash", "build", "died with status -11"),
        )

    @pytest.mark.thorough
    def test_a_process_that_says_nothing_is_ended(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        silent = [sys.executable, "-c", "import time; time.sleep(600)"]
        monkeypatch.setattr(run, "command", lambda *_: silent)
        monkeypatch.setattr(run, "LIMIT_S", {"op_by_op": 0.1})
        monkeypatch.setattr(run, "LOGS", tmp_path)
        spec = {"entries": [], "compiler": "op_by_op", "without": [], "done": []}

        assert run.one_process("build", spec, tmp_path, run.Gathered()) == "said nothing for 0.1 s"


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ([], ["a", "b", "c", "d"]),
        (["--only", "d", "b"], ["d", "b"]),
        (["--missing"], ["c", "d"]),
        (["--again", "wrong", "raw"], ["b"]),
        (["--database", "modules"], ["d"]),
        (["--shard", "2/3"], ["b"]),
        (["--inductor"], ["a"]),
        (["--inductor", "--all"], ["a", "b", "c", "d"]),
    ],
)
def test_entries_are_chosen(
    given: list[str], chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", *given])
    databases = {**dict.fromkeys("abc", "operators"), "d": "modules"}
    known = {
        "a": Result("a", "operators", 3),
        "b": Result("b", "operators", 2, (Finding("int64 0", "wrong"),)),
    }

    assert run.select(databases, run.parse(), known) == chosen


def test_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"op_by_op": {"add": Result("add", "operators", 3, (Finding("int64 0", "raw"),), 0.5)}}
    results.write(tmp_path / "databases.json", known)
    assert results.read(tmp_path / "databases.json") == known

    monkeypatch.setattr(results, "versions", lambda: {"torch": "1.0"})
    assert results.read(tmp_path / "databases.json") == {}


def test_page_of_what_comparing_units_has_shown() -> None:
    shown = Proof(units=2, proven=1, sizes=4, op_by_op=("add, float32 0: piece_0: differs",))
    known = {"inductor": {"add": Result("add", "operators", 2, proof=shown)}}
    page = table.page(known, {"torch": "2.13.0"}, {"add": "operators"})

    assert (
        "2 units, of which 1 were compared, at 4 sizes.\n"
        "Pieces: 0 compiled without a pass, 1 run op by op, 0 not compared at some sizes.\n"
        "\n"
        "- add, float32 0: piece_0: differs (run op by op)\n"
    ) in page


def test_page() -> None:
    refused = Finding("float32 0", "refused", "build", "CaptureError: no. because: of contents")
    known = {
        "op_by_op": {
            "add": Result("add", "operators", 8),
            "nonzero": Result("nonzero", "operators", 0, (refused,)),
            "nn.GLU": Result("nn.GLU", "modules", 2, (Finding("float32 1", "wrong", "call", "x"),)),
        }
    }
    databases = dict.fromkeys(["add", "nonzero", "nn.GLU", "T"], "operators")
    page = table.page(known, {"torch": "2.13.0"}, databases)
    assert_expected_inline(
        page.replace(table.EXPLANATION, "EXPLANATION\n"),
        """\
# Databases

Under torch 2.13.0, of 4 entries. Op by op: 10 cases of 3 entries equal eager, 1 are refused with a
typed error, 1 are faults.

EXPLANATION

## Op by op

| | operators | modules | examples | |
| --- | ---: | ---: | ---: | --- |
| entries | 2 | 1 | 0 | |
| same | 8 | 2 | 0 | equal to eager, as built and as loaded |
| refused | 1 | 0 | 0 | a typed error that says what to do |
| wrong | 0 | 1 | 0 | another result than eager's |
| raw | 0 | 0 | 0 | an exception that is no `HotstartError`, where eager raises none |
| crash | 0 | 0 | 0 | the process died |
| slow | 0 | 0 | 0 | not done within the limit |
| skipped | 0 | 0 | 0 | says nothing about hotstart, with the reason |

### Faults

- **nn.GLU**, float32 1: wrong (call): x

### Refused

- 1: CaptureError: no. because: of contents. Of `nonzero`.

### Skipped

None.
""",
    )


@pytest.mark.slow
def test_some_entries_go_through_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["sinc", "nn.GLU", "export.pytree_flatten"]
    monkeypatch.setattr(sys, "argv", ["run", "--no-page", "--only", *names])

    assert run.main() == 0


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("shard", range(1, SHARDS + 1))
def test_every_entry_is_the_same_or_refused(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--no-page", "--shard", f"{shard}/{SHARDS}"])

    assert run.main() == 0
