"""The commands around a file: verify, load-check, keygen, and what they say of failures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from hotstart.artifact import signing
from hotstart.cli import main
from hotstart.cli.output import say
from tests.unit.cli.files import MODULE, Folder, run, run_apart

# --- verify ---------------------------------------------------------------------------------------


def test_verify_without_keys(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "verify", "plain.hot")
    assert (status, err) == (0, "")
    size = folder.plain.stat().st_size
    assert out == (f"plain.hot: all {size} bytes are as they were written\nsignature: none\n")
    _, out, _ = run(capsys, "verify", "signed.hot")
    assert "not checked, see verify --trusted-key" in out


def test_verify_with_keys(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    for keys in (["team.pub"], [folder.public], ["other.pub", "team.pub"]):
        flags = [word for key in keys for word in ("--trusted-key", key)]
        status, out, err = run(capsys, "verify", "signed.hot", *flags)
        assert (status, err) == (0, "")
        assert out.endswith(f"signature: by {folder.public.split()[1]}, which is trusted\n")


def test_verify_as_json(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = len(hotstart.inspect(folder.plain).blobs)
    status, out, _ = run(capsys, "verify", "plain.hot", "--json")
    assert (status, json.loads(out)) == (
        0,
        {
            "ok": True,
            "file": "plain.hot",
            "bytes": folder.plain.stat().st_size,
            "blobs": blobs,
            "signed_by": None,
            "trusted": False,
        },
    )
    _, out, _ = run(capsys, "verify", "signed.hot", "--json", "--trusted-key", "team.pub")
    found = json.loads(out)
    assert (found["signed_by"], found["trusted"]) == (folder.public.split()[1], True)


# --- load-check -----------------------------------------------------------------------------------


def test_load_check_of_what_fits(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "load-check", "plain.hot") == (0, "plain.hot fits here\n", "")
    status, out, _ = run(capsys, "load-check", "plain.hot", "--json")
    assert (status, json.loads(out)) == (0, {"ok": True, "file": "plain.hot"})


def test_load_check_names_every_part_that_differs(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "load-check", elsewhere)
    assert (status, out) == (4, "")
    assert f"torch: expected 1.0, found {torch.__version__}" in err
    missing = f"source {MODULE}.Missing.forward"
    assert f"{missing}: expected code 00000000, found no such function" in err
    status, out, err = run(capsys, "load-check", elsewhere, "--json")
    assert (status, err) == (4, "")
    error = json.loads(out)["error"]
    assert error["differences"] == [
        {"part": "torch", "expected": "1.0", "found": torch.__version__},
        {"part": missing, "expected": "code 00000000", "found": "no such function"},
    ]
    _, out, _ = run(capsys, "load-check", elsewhere, "--json", "--no-source")
    assert [found["part"] for found in json.loads(out)["error"]["differences"]] == ["torch"]


def test_load_check_finds_sources_in_the_working_folder(folder: Folder, tmp_path: Path) -> None:
    command = ("-c", "import sys; from hotstart.cli import main; sys.exit(main())", "load-check")
    assert run_apart(*command, folder.plain, cwd=folder.path).returncode == 0
    done = run_apart(*command, folder.plain, cwd=tmp_path)
    assert done.returncode == 4
    assert f"source {MODULE}: expected content" in done.stderr
    assert run_apart(*command, folder.plain, "--no-source", cwd=tmp_path).returncode == 0


# --- keygen ---------------------------------------------------------------------------------------


def test_keygen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "team"
    status, out, err = run(capsys, "keygen", file)
    assert (status, out) == (0, Path(f"{file}.pub").read_text())
    assert err == f"wrote {file}, to be kept secret, and {file}.pub, to be given away\n"
    public, signature = signing.signer(file)(b"text")
    assert signing.truster([out.strip()])(b"text", public, signature) is None
    status, out, err = run(capsys, "keygen", file)
    assert (status, out) == (1, "")
    assert "expected no such file, found one" in err


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "verify", "load-check"])
@pytest.mark.parametrize(
    ("make", "status", "kind"),
    [
        (lambda path: None, 1, "ArtifactError"),
        (lambda path: path.mkdir(), 1, "ArtifactError"),
        (lambda path: path.write_bytes(b""), 3, "CorruptArtifact"),
        (lambda path: path.write_bytes(b"PK\x03\x04" * 99), 3, "CorruptArtifact"),
        (lambda path: path.write_bytes(b"HOTSTART\x03\0\0\0"), 4, "IncompatibleArtifact"),
    ],
    ids=["missing", "folder", "empty", "zip", "format 3"],
)
def test_files_that_are_no_artifacts(
    command: str,
    make: Any,
    status: int,
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "m.hot"
    make(file)
    found, out, err = run(capsys, command, file)
    assert (found, out) == (status, "")
    assert err.startswith(f"error: {file}")
    message = err.removeprefix("error: ").removesuffix("\n")
    found, out, err = run(capsys, command, file, "--json")
    assert (found, err) == (status, "")
    error = json.loads(out)
    differences = [{"part": "format", "expected": "1 or 2", "found": "3"}] if status == 4 else []
    assert error == {
        "ok": False,
        "error": {"type": kind, "message": message, "differences": differences},
    }


@pytest.mark.parametrize("command", ["verify", "load-check"])
def test_damage_is_status_3(
    command: str, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = hotstart.inspect(damaged).blobs[-1].name
    status, out, err = run(capsys, command, damaged)
    assert (status, out) == (3, "")
    assert f"blob {name}: expected SHA-256" in err
    assert run(capsys, "inspect", damaged)[0] == 0  # which reads no blobs


@pytest.mark.parametrize("file", ["plain.hot", "signed.hot"])
def test_what_nobody_trusted_signed_is_status_5(
    file: str, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "verify", file, "--trusted-key", "other.pub")
    assert (status, out) == (5, "")
    assert "expected a signature by a trusted key" in err
    status, out, err = run(capsys, "verify", file, "--trusted-key", "other.pub", "--json")
    assert (status, err) == (5, "")
    assert json.loads(out)["error"]["type"] == "UntrustedArtifact"


def test_a_key_that_is_none_is_status_1(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "verify", "signed.hot", "--trusted-key", "team")
    assert status == 1
    assert "found a private key" in err


def test_a_traceback_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capsys, "inspect", tmp_path / "m.hot", "--json", "--traceback")
    assert json.loads(out)["ok"] is False
    assert "Traceback" in err


@pytest.mark.parametrize("command", ["build", "inspect", "verify", "load-check", "keygen"])
def test_help_says_the_exit_statuses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    statuses = capsys.readouterr().out.split("exit status:\n")[1].split("\n")
    assert [line.split()[0] for line in statuses if line] == [*"0123456", "130"]


# --- processes of their own -----------------------------------------------------------------------

NO_TORCH = """
import sys
from hotstart.cli import main
status = main()
loaded = sorted(name for name in sys.modules if name.split(".")[0] == "torch")
assert not loaded, loaded
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("inspect signed.hot", 0),
        ("inspect signed.hot --json", 0),
        ("verify signed.hot --trusted-key team.pub", 0),
        ("verify signed.hot --trusted-key other.pub", 5),
        ("load-check signed.hot", 0),
        ("keygen fresh", 0),
        ("--help", 0),
    ],
)
def test_no_torch_is_imported(line: str, status: int, folder: Folder) -> None:
    done = run_apart("-c", NO_TORCH, *line.split(), cwd=folder.path)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr


@pytest.mark.parametrize(
    ("line", "status"),
    [("inspect plain.hot --json", 0), ("inspect none.hot --json", 1), ("--help", 0)],
)
def test_a_reader_who_has_gone_is_no_error(line: str, status: int, folder: Folder) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_apart("-m", "hotstart", *line.split(), cwd=folder.path, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (status, "")


def test_an_error_that_nobody_reads_keeps_its_status(folder: Folder) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_apart("-m", "hotstart", "inspect", "/", cwd=folder.path, stderr=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (1, "")


def test_saying_leaves_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("größe\t\x9b\udcff\n2")
    assert capsys.readouterr().out == "größe\\t\\x9b\\udcff\n2\n"
