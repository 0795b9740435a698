"""`hotstart build --output`: a file that was checked, or a reason."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import hotstart
from hotstart.reporting.contents import check_text
from tests.unit.cli.files import MODULE, Folder, run, run_apart

BUILD = ("build", f"{MODULE}:make", "--compiler", "op_by_op", "--dynamic", "x:0=batch[2..8]")


def test_build_saves(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.hot"
    status, out, err = run(capsys, *BUILD, "--no-check", "-o", file, "--sign-key", "team")
    assert status == 0
    assert "variant batch=2..8: " in out
    assert str(file) not in out
    assert f"\nsave\nwrote {file}, {file.stat().st_size / 1024:.0f} KiB\n" in err
    assert run(capsys, "verify", file, "--trusted-key", "team.pub")[0] == 0
    assert hotstart.inspect(file).check == {}


def test_build_reports_what_it_saved_as_json(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.hot"
    _, out, _ = run(capsys, *BUILD, "--no-check", "--output", file, "--json")
    report = json.loads(out)
    assert report["output"] == {"file": str(file), "bytes": file.stat().st_size}
    assert report["variants"][0]["name"] == "batch=2..8"
    _, out, _ = run(capsys, *BUILD, "--json")
    assert report.keys() - json.loads(out).keys() == {"output"}


def test_build_checks_and_the_file_loads_in_another_process(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.hot"
    assert run(capsys, *BUILD, "-o", file)[0] == 0
    assert hotstart.inspect(file).check["exact"] is True
    assert run_apart("-m", "hotstart", "load-check", file, cwd=folder.path).returncode == 0


@pytest.mark.slow
def test_build_checks_where_it_is_a_process_of_its_own(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "model.hot"
    done = run_apart("-m", "hotstart", *BUILD, "-o", file, cwd=folder.path)
    assert done.returncode == 0, done.stderr
    assert hotstart.inspect(file).check["exact"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "none/model.hot"], "none/model.hot: expected a place that can be written, found"),
        (["-o", "."], ".: expected a place that can be written, found: a folder of that name."),
        (["-o", f"{MODULE}.py/model.hot"], "expected a place that can be written, found"),
        (["-o", "m.hot", "--sign-key", "none"], "none: expected a private key"),
        (["-o", "m.hot", "--sign-key", "team.pub"], "found a public key"),
    ],
)
def test_build_finds_out_first_that_it_cannot_save(
    flags: list[str], message: str, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.path.iterdir())
    # The factory would end this process.
    status, out, err = run(capsys, "build", f"{MODULE}:narrow", *flags)
    assert (status, out) == (1, "")
    assert message in err
    assert sorted(folder.path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_build_finds_out_first_that_a_folder_is_read_only(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").mkdir(mode=0o500)
    status, _, err = run(capsys, "build", f"{MODULE}:narrow", "-o", tmp_path / "kept" / "m.hot")
    assert status == 1
    assert "Permission denied" in err


def test_a_failed_build_is_json_on_request(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "build", f"{MODULE}:missing", "--json")
    assert status == 1
    assert json.loads(out)["error"]["type"] == "OptionsError"


def test_a_failed_save_leaves_the_old_file(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.hot"
    shutil.copy(folder.plain, file)
    status, _, _ = run(capsys, "build", f"{MODULE}:missing", "-o", file)
    assert status == 1
    assert file.read_bytes() == folder.plain.read_bytes()


def test_what_was_not_checked_is_shown_with_the_reason() -> None:
    found = {"tensors": 4, "exact": True, "max_error": 0.0}
    told = "4 tensors were equal bit by bit when it was saved"
    assert check_text(found) == told  # as older files say it
    assert check_text({**found, "unchecked": []}) == told
    assert check_text({**found, "unchecked": [["batch=1", "the example: IndexError: 5"]]}) == (
        f"{told}; not checked: batch=1 (it runs on no inputs that were tried: "
        "the example: IndexError: 5)"
    )
