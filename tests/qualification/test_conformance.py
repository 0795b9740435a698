"""The runner of the conformance suite: what it compares, judges and writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from expecttest import assert_expected_inline
from torch import nn

from hotstart import Dim
from qualification.conformance import catalogue, measure, results, run, table
from qualification.conformance.results import Result
from qualification.conformance.zoo.entry import Entry

BATCH = Dim("batch", max=4)
SEQ = Dim("seq", max=64, ranges=[(2, 16), (17, 64)], sizes=[1])


def entry(**changes: object) -> Entry:
    given = {
        "name": "linear",
        "family": "linear",
        "make": lambda: nn.Linear(2, 2),
        "inputs": lambda sizes: {"input": torch.ones(sizes["batch"], 2)},
        "dynamic_shapes": {"input": {0: BATCH}},
        "example": {"batch": 2},
    }
    return Entry(**{**given, **changes})


class TestSizes:
    def test_axes_are_found_in_nested_declarations(self) -> None:
        assert catalogue.axes({"a": [{0: BATCH}, None], "b": {"c": {1: SEQ}}}) == {
            "batch": BATCH,
            "seq": SEQ,
        }

    def test_axes_are_those_that_sizes_follow_from(self) -> None:
        declared = {"a": {0: 8 * BATCH, 1: BATCH + SEQ}}
        assert catalogue.axes(declared) == {"batch": BATCH, "seq": SEQ}

    def test_every_end_of_a_range_is_tried(self) -> None:
        tried = catalogue.sizes_to_try(
            entry(dynamic_shapes={"x": {0: BATCH, 1: SEQ}}, example={"batch": 2, "seq": 8})
        )

        assert {sizes["seq"] for sizes in tried} >= {1, 2, 8, 16, 17, 64}

    def test_corners_of_several_axes_are_tried(self) -> None:
        tried = catalogue.sizes_to_try(
            entry(dynamic_shapes={"x": {0: BATCH, 1: SEQ}}, example={"batch": 2, "seq": 8})
        )

        corners = [{"batch": batch, "seq": seq} for batch in (1, 4) for seq in (1, 64)]
        assert all(corner in tried for corner in corners)

    def test_sizes_that_are_not_served_are_not_tried(self) -> None:
        gap = Dim("batch", max=64, ranges=[], sizes=[4, 64])
        tried = catalogue.sizes_to_try(entry(dynamic_shapes={"x": {0: gap}}, example={"batch": 4}))

        assert tried == [{"batch": 4}, {"batch": 64}]

    def test_a_static_model_is_tried_as_it_is(self) -> None:
        assert catalogue.sizes_to_try(entry(dynamic_shapes={}, example={})) == [{}]


class TestVerdict:
    def test_one_failure_in_many_is_accepted(self) -> None:
        passing = [Result(str(n), "f", stock_captures=True) for n in range(19)]

        assert results.verdict([*passing, Result("x", "f", "", "why", stock_captures=True)]) == 0

    def test_more_failures_are_not(self) -> None:
        passing = [Result(str(n), "f", stock_captures=True) for n in range(18)]

        assert results.verdict([*passing, Result("x", "f", "", "why", stock_captures=True)]) == 1

    def test_what_stock_cannot_capture_does_not_count(self) -> None:
        assert results.verdict([Result("x", "f", "", "why", stock_captures=False)]) == 0

    def test_one_wrong_result_is_enough(self) -> None:
        passing = [Result(str(n), "f", stock_captures=True) for n in range(99)]

        assert results.verdict([*passing, Result("x", "f", "", "why", wrong=True)]) == 1


class TestResults:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        kept = Result("a", "f", pieces=3, max_error=1e-6)
        results.write(tmp_path / "models.json", [kept])

        assert results.read(tmp_path / "models.json") == {"a": kept}

    def test_results_of_other_versions_are_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        results.write(tmp_path / "models.json", [Result("a", "f")])
        monkeypatch.setattr(results, "versions", lambda: {"torch": "1.0"})

        assert results.read(tmp_path / "models.json") == {}


class TestStep:
    def test_a_step_that_dies_is_a_problem(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run.sys, "executable", shutil.which("false"))

        found = run.step("build", "decoders", entry(), tmp_path)

        assert found == {"problem": "build died with status 1"}

    def test_what_a_step_raises_is_what_it_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(catalogue, "entry", lambda module, name: entry(make=lambda: 1 / 0))

        measure.main("build", "decoders", "linear", str(tmp_path), str(tmp_path / "out"))

        assert json.loads((tmp_path / "out").read_text()) == {
            "problem": "unexpected ZeroDivisionError: division by zero",
            "wrong": False,
        }
        assert "Traceback" in capsys.readouterr().err

    def test_a_step_that_takes_too_long_is_a_problem(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run, "LIMIT_S", 0.01)

        found = run.step("build", "decoders", entry(), tmp_path)

        assert found == {"problem": "build did not end within 0.01 s"}


def test_times_of_a_busy_machine_are_not_kept() -> None:
    timed = Result("one", "a", build_s=2.0, load_ms=1.0, call_ms=1.0, pieces=3, max_error=0.5)
    assert timed.untimed() == Result("one", "a", pieces=3, max_error=0.5)


def test_page() -> None:
    known = [
        Result(
            "llama",
            "dense decoders",
            stock_captures=True,
            stock_first_s=20.0,
            stock_ms=2.0,
            call_ms=1.9,
            build_s=10.0,
            pieces=6,
            different=3,
            grows_by=0,
            load_ms=4.56,
            max_error=2.4e-6,
        ),
        Result("odd", "dense decoders", "grows", stock_captures=True, different=3, grows_by=2),
        Result("bad", "encoders", "", "Wrong: differs", wrong=True, stock_captures=True),
        Result(
            "none", "encoders", "", "CaptureError: no", stock_captures=False, stock_problem="No"
        ),
    ]
    page = table.page(known, {"torch": "2.13.0", "Python": "3.11"})

    assert_expected_inline(
        page.replace(table.EXPLANATION, "EXPLANATION\n"),
        """\
# Models

2 of 4 architectures (50 %) are compiled, saved, loaded elsewhere and equal to eager, under torch
2.13.0, Python 3.11. `torch.compile(fullgraph=True)` captures 3 of them.

Every model has random weights that are the same in every process, is small, and has every kind of
layer that its architecture has; its notes say what is special about it. Sizes that are declared
dynamic, such as batch and sequence length, are compiled as ranges. *stock* is `torch.compile`. Few
layers served at all sizes are compared with one call of stock, so these ratios are the worst:
depth adds little to a build of hotstart, and much to that of stock. `make conformance` makes this
page anew; what it measured is in [models.json](models.json).

- **pieces**: pieces the graphs were cut into, and how many different ones of them had to be
  compiled. Where size 1 or another size takes another path through the model, it has a graph of its
  own, and pieces are those of all graphs.
  In `4 +1`, a model of twice the depth has one different piece more.
- **build**: seconds of `hotstart.compile` with empty caches, for all ranges of all axes; then the
  same divided by the first call of `torch.compile(fullgraph=True, dynamic=True)` with empty caches,
  which serves the sizes of one call.
  Rows without a ratio were made without that comparison; those without any times while the machine
  did other work.
- **load**: milliseconds of `hotstart.load` in a process without a compiler and with empty caches;
  the median of several.
- **call**: the median call of the loaded program, divided by that of the model that `torch.compile`
  made, at the sizes of the example. Both are called in turns in one process.
- **error**: largest difference between the loaded program and eager, over all tensors that are
  returned, at size 1, at both ends of every range, and between. Types, shapes and dtypes are equal.

## Dense decoders

| model | pieces | different | build s | / stock | load ms | call / stock | error |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| llama | 6 | 3 | 10.0 | 0.50 | 4.6 | 0.95 | 2e-06 |
| odd: grows |  | 3 +2 |  |  |  |  |  |

## Encoders

| model | pieces | different | build s | / stock | load ms | call / stock | error |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| bad | **wrong** |  |  |  |  |  |  |
| none | fails |  |  |  |  |  |  |

## What does not work

- **bad**: Wrong: differs. `torch.compile(fullgraph=True)` can.
- **none**: CaptureError: no. `torch.compile(fullgraph=True)` cannot: No
""",
    )
