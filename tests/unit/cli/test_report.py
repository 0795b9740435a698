"""`hotstart report`, and the document that `hotstart build` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.files import MODULE, Folder, run, run_apart

BUILD = ("build", f"{MODULE}:make", "--compiler", "op_by_op", "--dynamic", "x:0=batch[2..8]")


@pytest.fixture
def made(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    file = tmp_path / "model.hot"
    assert run(capsys, *BUILD, "--no-check", "-o", file)[0] == 0
    return file


def test_a_build_writes_its_document_beside_the_file(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made.with_suffix(".report.json").is_file()
    status, out, err = run(capsys, "report", made)
    assert (status, err) == (0, "")
    assert "capture" in out
    assert "  save " in out
    status, out, _ = run(capsys, "report", made, "--json")
    plain = json.loads(out)
    assert (plain["kind"], plain["version"]) == ("build", 1)
    assert plain["around"].keys() == {"other", "model", "build", "save"}
    assert plain["details"]["pieces"]


@pytest.mark.thorough
def test_phases_of_a_build_in_a_new_process_add_up_and_have_names(
    folder: Folder, tmp_path: Path
) -> None:
    file = tmp_path / "model.hot"
    done = run_apart("-m", "hotstart", *BUILD, "--no-check", "-o", file, cwd=folder.path)
    assert done.returncode == 0, done.stderr
    plain = json.loads(file.with_suffix(".report.json").read_text())
    phases, wall = plain["report"]["phases"], plain["around"]["build"]
    assert sum(phases.values()) == pytest.approx(wall, rel=0.05)
    assert phases["other"] <= 0.03 * wall
    assert phases["import"] > phases["bind"]


def test_a_document_goes_where_it_is_asked_to_or_nowhere(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "kept.json"
    assert run(capsys, *BUILD, "--report", report)[0] == 0
    assert json.loads(report.read_text())["file"] == ""
    file = tmp_path / "model.hot"
    assert run(capsys, *BUILD, "--no-check", "--no-report", "-o", file)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.json", "model.hot"]


def test_a_document_that_cannot_be_written_is_known_before_the_build(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "missing" / "report.json"
    status, _, err = run(capsys, "build", f"{MODULE}:narrow", "--report", place)
    assert status == 1
    assert "Nothing was built" in err


def test_a_page_is_written(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "model.html"
    status, out, err = run(capsys, "report", made, "--html", page)
    assert (status, out, err) == (0, "", f"wrote {page}\n")
    assert page.read_text().startswith("<!doctype html>")


def test_two_reports_are_compared(
    folder: Folder, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "report", made, made)
    assert status == 0
    assert out.startswith("the same but for what was measured")
    status, out, _ = run(capsys, "report", folder.plain, made)
    assert status == 0
    assert "variant batch=2..8" in out
    status, out, _ = run(capsys, "report", folder.plain, made, "--json")
    assert {each["name"] for each in json.loads(out)["contract"]} >= {"variant batch=2..8"}


def test_a_page_a_trace_and_json_may_be_asked_for_at_once(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, trace = tmp_path / "model.html", tmp_path / "trace.json"
    status, out, err = run(capsys, "report", made, "--html", page, "--trace", trace, "--json")
    assert (status, err) == (0, f"wrote {page}\nwrote {trace}\n")
    assert json.loads(out)["kind"] == "build"
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(trace.read_text())["traceEvents"]


@pytest.mark.parametrize("flag", ["--html", "--trace"])
def test_two_reports_make_no_file(
    flag: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "made"
    with pytest.raises(SystemExit) as caught:
        run(capsys, "report", made, made, flag, place)
    assert caught.value.code == 2
    assert not place.exists()


def test_a_damaged_report_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    file.write_text("{}")
    status, _, err = run(capsys, "report", file)
    assert status == 3
    assert "expected a report of hotstart" in err
