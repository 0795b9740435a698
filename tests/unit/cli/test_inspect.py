"""`hotstart inspect`: what is in a file, as text and as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from hotstart.records.nested import Const, Seq
from hotstart.reporting.contents import itemsize
from tests.unit.cli.files import MODULE, Folder, run, write, written


def words(text: str) -> dict[str, list[str]]:
    """Lines by their first word, without indents and with single spaces."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        first, *rest = line.split() or [""]
        lines.setdefault(first, []).append(" ".join(rest))
    return lines


def test_inspect_shows_the_file_and_the_model(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "inspect", "plain.hot")
    assert (status, err) == (0, "")
    shown = words(out)
    size = folder.plain.stat().st_size
    assert shown["format"] == ["1"]
    assert shown["size"][0] == f"{size} bytes ({size / 1024:.0f} KiB)"
    assert shown["signature"] == ["none"]
    assert shown["check"] == ["none was made when it was saved"]
    # three layers of 8 x 8 weights and 8 biases in float32, and an int64
    assert shown["weights"] == [
        "1 buffer, 6 parameters; 872 bytes of int64, float32; calls write to 1"
    ]
    assert shown["model"] == ["a module in eval mode"]
    assert shown["in"] == ["C not served: there is no native code"]
    assert shown["torch"] == [torch.__version__]
    assert shown[MODULE] == [
        hotstart.inspect(folder.plain).fingerprint["sources"][MODULE]["content"][:8]
    ]


def test_inspect_shows_the_arguments_as_a_caller_writes_them(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "inspect", "plain.hot")
    section = next(part for part in out.split("\n\n") if part.startswith("arguments"))
    assert [" ".join(line.split()) for line in section.splitlines()[2:]] == [
        "x float32 (batch, 8) cpu by position only",
        "masks dict of 1",
        "masks['first'] bool (8,) cpu",
        "pair Pair of 2",
        "pair.a float32 (8,) cpu",
        "pair.b float32 (2, 4) cpu dimensions lie in the order (1, 0)",
        "*rest tuple of 1",
        "rest[0] float32 (8,) cpu",
        "mode constant Mode.FAST by keyword only, may be left out",
        "size constant (1, 2) by keyword only, may be left out",
        "dtype constant torch.float32 by keyword only, may be left out",
        "state State of 2 by keyword only",
        "state.hidden float32 (8,) cpu",
        "state.scale constant 0.5",
        "total float32 (8,) cpu by keyword only, is written to",
        "scale constant 2.5 by keyword only, may be left out",
        "factors constant () by keyword only, may be left out",
    ]


def test_inspect_shows_axes_variants_pieces_and_blobs(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "inspect", "plain.hot")
    manifest = written(folder.plain)
    parts = dict(part.split("\n", 1) for part in out.split("\n\n"))
    assert parts["axes"].splitlines()[1].split() == ["batch", "1..8", "2..4,", "5..8,", "1"]
    assert parts["variants"].split() == ["batch=2..4", "batch=5..8", "batch=1"]
    pieces = next(title for title in parts if title.startswith("pieces: "))
    assert pieces.startswith(f"pieces: {len(manifest['pieces'])}, of ")
    assert "piece_0" in parts[pieces]
    assert "blocks.0" in parts[pieces]
    *blobs, more = [line.split()[0] for line in parts["blobs"].splitlines()]
    assert (blobs, more) == ([blob["name"] for blob in manifest["blobs"][:6]], "and")
    assert "linears, as measured" not in parts  # since there are none
    assert out.endswith("all rows: hotstart report plain.hot, or inspect --json\n")
    assert len(out.splitlines()) < 75


def test_a_report_shows_what_inspect_leaves_out(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "report", "plain.hot")
    for blob in written(folder.plain)["blobs"]:
        assert blob["name"] in out


def test_inspect_shows_who_signed(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "inspect", "signed.hot")
    key = folder.public.split()[1]
    assert words(out)["signature"] == [f"by {key}; not checked, see verify --trusted-key"]


def test_inspect_shows_what_the_model_of_the_tests_has_not(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = written(folder.plain)
    manifest["check"] = {"tensors": 7, "exact": False, "max_error": 0.25, "news": 1}
    manifest["report"]["op_by_op"] = [["piece_0", "it wants\nrandom numbers"]]
    manifest["calls"][0]["contract"]["axes"] = []
    manifest["requirements"]["weights"] = []
    manifest["calls"][0]["contract"]["training"] = None
    manifest["calls"][0]["contract"]["autocast"] = [["cpu", "bfloat16"]]
    device = {"cuda": {"name": "H100", "count": None}}
    manifest["fingerprint"] = {"torch": "2.13.0", "device": device, "news": []}
    status, out, _ = run(capsys, "inspect", write(tmp_path / "m.hot", manifest))
    assert status == 0
    shown = words(out)
    assert shown["check"] == ["7 tensors were at most 0.25 apart when it was saved"]
    assert "it wants random numbers" in shown["piece_0"]
    assert shown["weights"] == ["none"]
    assert shown["model"] == ["a function, autocast to bfloat16 on cpu"]
    assert shown["device"][-1] == "cuda name H100, count nothing"
    assert shown["news"] == ["nothing"]
    assert "\naxes" not in out


def test_inspect_returns_the_records_with_names_for_what_a_load_brings(folder: Folder) -> None:
    manifest = hotstart.inspect(folder.plain)
    (call,) = manifest.calls
    assert [spec.dtype for spec in call.contract.tensors[:2]] == ["float32", "bool"]
    trees = {parameter.name: parameter.tree for parameter in call.contract.parameters}
    assert isinstance(pair := trees["pair"], Seq)
    assert (pair.cls.__module__, pair.cls.__qualname__) == (MODULE, "Pair")
    assert pair.cls is not sys.modules[MODULE].Pair
    assert trees["size"] == Const({"tuple": [1, 2]})
    codes = [unit.code for unit in manifest.units] + [one.code for one in call.stitched]
    named = {blob.name for code in codes for blob in (code.source, code.bytecode)}
    assert named == {blob.name for blob in manifest.blobs}
    assert not any(code.source.data for code in codes)


def test_inspect_is_no_wider_than_a_page(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "inspect", "plain.hot")
    assert max(map(len, out.splitlines())) <= 100
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_inspect_prints_nothing_that_steers_a_terminal(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = written(folder.plain)
    manifest["calls"][0]["contract"]["parameters"][0]["name"] = "x"
    manifest["calls"][0]["contract"]["tensors"][0]["path"] = "\x1b[2Jfake\nsignature  by you"
    manifest["fingerprint"]["torch"] = "\x1b]0;\u202e"
    file = write(tmp_path / "m.hot", manifest)
    status, out, _ = run(capsys, "inspect", file)
    assert status == 0
    assert "\\x1b[2Jfake signature by you" in out
    assert words(out)["signature"] == ["none"]
    _, _, err = run(capsys, "load-check", file)
    assert "\\x1b]0;\\u202e" in err
    assert err.replace("\n", "").isprintable()


def test_inspect_as_json_is_the_manifest(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "inspect", "plain.hot", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == written(folder.plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": 3},
        {"fingerprint": {"sources": 3}},
        {"check": {"tensors": 1}},
        {"pieces": [{"name": "piece_0"}]},
        {"calls": None},
        {"tree": {"type": "slot", "kind": "arg", "index": 99}},
        {"tree": {"type": "slot", "kind": "out", "index": 0}},
        {"tree": {"type": "seq", "cls": "builtins:tuple", "items": 3}},
        {"tree": {"type": "const", "value": {"a": 1, "b": 2}}},
        {"shape": [2**63] * 99},
    ],
    ids=str,
)
def test_a_manifest_of_somebody_else(
    changes: dict[str, Any], folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = written(folder.plain)
    match changes:
        case {"tree": tree}:
            manifest["calls"][0]["contract"]["parameters"][0]["tree"] = tree
        case {"shape": shape}:
            manifest["requirements"]["weights"][0]["shape"] = shape
        case _:
            manifest |= changes
    file = write(tmp_path / "m.hot", manifest)
    status, out, err = run(capsys, "inspect", file)
    assert (status, out) == (3, "")
    assert err.startswith(f"error: {file}: manifest: expected what hotstart writes, found this: ")
    assert run(capsys, "inspect", file, "--json")[0] == 0


DTYPES = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_bytes_of_an_element(dtype: torch.dtype) -> None:
    assert itemsize(str(dtype).removeprefix("torch.")) == dtype.itemsize
