"""The commands around a file: build --output, inspect, verify, load-check, keygen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from hotstart.artifact import container, disk, signing
from hotstart.cli import main
from hotstart.cli.artifact import _check, itemsize
from hotstart.cli.output import say
from hotstart.records.nested import Const, Seq

MODULE = "model_of_the_cli_tests"
SOURCE = """
import dataclasses
import enum
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class Mode(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class State:
    hidden: Tensor
    scale: float = 0.5


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(
        self, x, /, masks, pair, *rest, mode=Mode.FAST, size=(1, 2), dtype=torch.float32,
        state, total, scale=2.5, factors=(),
    ):
        self.calls.add_(1)
        for block in self.blocks:
            x = x + torch.relu(block(x))
        total.add_(1)
        x = x * scale + masks["first"].to(dtype) + pair.a + state.hidden * state.scale + rest[0]
        return x, pair.b * 2


def make():
    args = (
        torch.zeros(3, 8),
        {"first": torch.ones(8, dtype=torch.bool)},
        Pair(torch.zeros(8), torch.zeros(4, 2).t()),
        torch.zeros(8),
    )
    return Model().eval(), args, {"state": State(torch.zeros(8)), "total": torch.zeros(8)}


def narrow():
    raise SystemExit("the model was made")
"""


@dataclass(frozen=True)
class Folder:
    """A working folder with a model, two keys, and artifacts of the model."""

    path: Path
    plain: Path
    signed: Path
    public: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    path = tmp_path_factory.mktemp("work")
    (path / f"{MODULE}.py").write_text(SOURCE)
    _, public = signing.generate(path / "team")
    signing.generate(path / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        model, args, kwargs = __import__(MODULE).make()
        program = hotstart.compile(
            model,
            args,
            kwargs,
            dynamic_shapes={"x": {0: hotstart.Dim("batch", max=8, ranges=[(2, 4)], sizes=[1])}},
            options=hotstart.Options(compiler="op_by_op"),
        )
        program.save(path / "plain.hot", check=False)
        program.save(path / "signed.hot", sign_key=path / "team", check=False)
        yield Folder(path, path / "plain.hot", path / "signed.hot", public)
    sys.modules.pop(MODULE, None)


@pytest.fixture
def folder(built: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(built.path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return built


@pytest.fixture
def damaged(folder: Folder, tmp_path: Path) -> Path:
    """A signed file with one bit turned over in its last blob."""
    data = bytearray(folder.signed.read_bytes())
    data[-1] ^= 1
    file = tmp_path / "damaged.hot"
    file.write_bytes(data)
    return file


@pytest.fixture
def elsewhere(folder: Folder, tmp_path: Path) -> Path:
    """A file that was built with another torch and other sources."""
    manifest = written(folder.plain)
    source = {"content": "0" * 32, "functions": [["Missing.forward", "0" * 32]]}
    manifest["fingerprint"] |= {"torch": "1.0", "sources": {MODULE: source}}
    return write(tmp_path / "elsewhere.hot", manifest)


def written(file: Path) -> dict[str, Any]:
    """The manifest of a file, as JSON says it."""
    found: dict[str, Any] = json.loads(container.read_manifest(file))
    return found


def write(file: Path, manifest: dict[str, Any]) -> Path:
    disk.write(file, container.pack(manifest, {}))
    return file


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command in this process."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def run_apart(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(hotstart.__file__).parents[1])},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


# --- inspect --------------------------------------------------------------------------------------


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
    assert pieces.startswith(f"pieces: {len(manifest['pieces'])}, of which ")
    assert "piece_0" in parts[pieces]
    assert "blocks.0" in parts[pieces]
    blobs = [line.split()[0] for line in parts["blobs"].splitlines()]
    assert blobs == [blob["name"] for blob in manifest["blobs"]]


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
    manifest["fingerprint"]["device"] = {"cuda": {"name": "H100", "count": None}}
    manifest["fingerprint"]["news"] = []
    status, out, _ = run(capsys, "inspect", write(tmp_path / "m.hot", manifest))
    assert status == 0
    shown = words(out)
    assert shown["check"] == ["7 tensors were at most 0.25 apart when it was saved"]
    assert "it wants random numbers" in shown["piece_0"]
    assert shown["weights"] == ["none"]
    assert shown["model"] == ["a function, autocast to bfloat16 on cpu"]
    assert shown["device"][-1] == "cuda name H100, count nothing"
    assert shown["news"] == ["nothing"]
    assert "axes\n  none\n" in out


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
        (lambda path: path.write_bytes(b"HOTSTART\x02\0\0\0"), 4, "IncompatibleArtifact"),
    ],
    ids=["missing", "folder", "empty", "zip", "format 2"],
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
    differences = [{"part": "format", "expected": "1", "found": "2"}] if status == 4 else []
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


# --- build --output -------------------------------------------------------------------------------

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
    assert _check(found) == told  # as older files say it
    assert _check({**found, "unchecked": []}) == told
    assert _check({**found, "unchecked": [["batch=1", "the example: IndexError: 5"]]}) == (
        f"{told}; not checked: batch=1 (it runs on no inputs that were tried: "
        "the example: IndexError: 5)"
    )
