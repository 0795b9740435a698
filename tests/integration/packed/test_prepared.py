"""Weights that were prepared and saved: mapped by other processes, and used only where they fit."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import (
    ArtifactError,
    CorruptArtifact,
    Dim,
    IncompatibleArtifact,
    ModelMismatch,
    OptionsError,
)
from hotstart.artifact import fingerprint, weights_compatibility, weights_file
from tests.integration.packed.prepared import EAGER, IDS, Net, Saved, X
from tests.processes import run_fresh

pytestmark = pytest.mark.usefixtures("kept_pieces")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    torch.manual_seed(0)
    shapes = {"ids": {1: Dim("tokens", max=16)}}
    return Saved(tmp_path_factory.mktemp("net"), Net(), IDS, dynamic_shapes=shapes)


# --- what a load does -----------------------------------------------------------------------------


FRESH = """
    import json, sys
    import torch
    import hotstart
    program = hotstart.load(sys.argv[1], weights=sys.argv[2])
    result = program(torch.arange(21).view(3, 7))
    packed = program.report.packed
    print(json.dumps({
        "result": result.tolist(), "seconds": packed.seconds, "made": packed.bytes,
        "mapped": packed.mapped, "tensors": packed.tensors,
        "compiler": "torch._inductor" in sys.modules,
    }))
"""


@pytest.mark.thorough
def test_a_fresh_process_packs_nothing_and_computes_the_same(net: Saved) -> None:
    found = run_fresh(FRESH, net.file, net.weights)
    assert torch.equal(torch.tensor(found["result"]), net.program(IDS))
    assert found["seconds"] == 0
    assert found["made"] == 0
    assert found["mapped"] == net.program.report.packed.bytes > 0
    assert found["tensors"] == net.program.report.packed.tensors
    assert not found["compiler"]


@pytest.mark.parametrize("pack", ["now", "first_call", "background"])
def test_there_is_nothing_to_wait_for(net: Saved, pack: Any) -> None:
    loaded = net.load(pack=pack)
    assert torch.equal(loaded(IDS), net.program(IDS))
    assert loaded.report.packed.seconds == 0
    assert "of prepared weights mapped" in str(loaded.report)


def test_what_is_packed_cannot_be_had_unpacked(net: Saved) -> None:
    with pytest.raises(OptionsError, match="'never' with prepared weights"):
        net.load(pack="never")


def test_a_weight_that_is_only_there_packed_says_so(net: Saved) -> None:
    weights = net.load().weights
    assert torch.equal(weights["embed.weight"], net.model.embed.weight)
    assert torch.equal(weights["table"], net.model.table)
    assert weights["up.weight"].shape == (48, 32)
    with pytest.raises(ModelMismatch, match=r"up\.weight.*only what was packed.*\n.*original"):
        weights["up.weight"].sum()


def test_nothing_is_there_twice(net: Saved, tmp_path: Path) -> None:
    stored = net.weights.stat().st_size
    whole = sum(t.numel() * t.itemsize for t in (*net.model.parameters(), *net.model.buffers()))
    packed = net.program.report.packed.bytes
    assert stored < whole + packed + 20 * weights_file.PAGE
    table = open_table(net.weights)
    assert table.tensors[table.weights["up.weight"]].stretch is None
    assert "head.weight" not in table.weights  # tied
    program = net.load()
    program.save_weights(tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == net.weights.read_bytes()


def test_a_program_that_packs_nothing_writes_what_one_that_does_writes(
    net: Saved, tmp_path: Path
) -> None:
    for pack in ("never", "first_call", "background"):
        program = hotstart.load(net.file, net.model, pack=pack)  # type: ignore[arg-type]
        program.save_weights(tmp_path / "again.weights")
        assert (tmp_path / "again.weights").read_bytes() == net.weights.read_bytes()


def test_after_a_refresh_and_a_release_results_are_the_same(net: Saved) -> None:
    program = net.load()
    expected = net.program(IDS)
    program.refresh()
    assert torch.equal(program(IDS), expected)
    program.release_unpacked()
    assert torch.equal(program(IDS), expected)
    program.refresh()
    assert torch.equal(program(IDS), expected)


def test_a_program_is_saved_from_prepared_weights(net: Saved, tmp_path: Path) -> None:
    net.load().save(tmp_path / "model.hot")
    again = hotstart.load(tmp_path / "model.hot", weights=net.weights)
    assert torch.equal(again(IDS), net.program(IDS))
    assert torch.equal(hotstart.load(tmp_path / "model.hot", net.model)(IDS), net.program(IDS))


def test_released_weights_are_saved_as_they_were_packed(net: Saved, tmp_path: Path) -> None:
    copy = Net().eval()
    copy.load_state_dict(net.model.state_dict())
    copy.table = net.model.table
    program = hotstart.load(net.file, copy)
    assert program.release_unpacked() > 0
    program.save_weights(tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == net.weights.read_bytes()


def test_packed_weights_stay_mapped_as_long_as_they_are_used(net: Saved, tmp_path: Path) -> None:
    weights = tmp_path / "model.weights"
    weights.write_bytes(net.weights.read_bytes())
    program = net.load(weights=weights)
    weights.unlink()
    call = program[""]
    del program
    assert torch.equal(call(IDS), net.program(IDS))


# --- what is refused ------------------------------------------------------------------------------


def open_table(file: Path) -> weights_file.Table:
    with weights_file.OpenFile(str(file)) as source:
        return weights_file.read(source).table


def test_weights_that_were_prepared_for_another_program_are_refused(
    net: Saved, tmp_path: Path
) -> None:
    other = Saved(tmp_path, nn.Linear(32, 32), X)
    with pytest.raises(IncompatibleArtifact) as caught:
        net.load(weights=other.weights)
    assert [part for part, *_ in caught.value.differences] == ["units", "table of weights"]
    assert "save_weights" in str(caught.value)


def test_weights_that_were_prepared_for_another_machine_are_refused(
    net: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = fingerprint.host()

    def changed(**parts: Any) -> str:
        monkeypatch.setattr(fingerprint, "host", lambda: {**host, **parts})
        with pytest.raises(IncompatibleArtifact) as caught:
            weights_compatibility.require_fit("x", open_table(net.weights), net.program.artifact)
        return str(caught.value)

    assert "torch: expected" in changed(torch="2.99.0", torch_build="another")
    text = changed(instructions=[*host["instructions"], "avx1024"])
    assert "instructions: expected a CPU without avx1024, found a CPU with avx1024" in text
    text = changed(instructions=[f for f in host["instructions"] if f != "fma"])
    assert "expected a CPU with fma, found a CPU without fma" in text
    monkeypatch.setattr(fingerprint, "host", lambda: host)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    with pytest.raises(IncompatibleArtifact, match="SSE41"):
        net.load()


def test_plain_weights_fit_any_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Saved(tmp_path, nn.Linear(32, 32), X, options=EAGER)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert torch.equal(saved.load()(X), saved.program(X))


def test_the_original_is_used_where_prepared_weights_do_not_fit(
    net: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = net.model.state_dict()
    fits = net.load(weights=[net.weights, original])
    assert fits.report.packed.mapped
    missing = net.load(weights=(tmp_path / "none.weights", original))
    assert not missing.report.packed.mapped
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    with caplog.at_level(logging.WARNING, "hotstart"):
        other = net.load(weights=[net.weights, original])
    assert "SSE41" in caplog.text
    assert other.report.packed.bytes
    for program in (fits, missing, other):
        assert torch.equal(program(IDS), net.program(IDS))
    damaged = tmp_path / "damaged.weights"
    damaged.write_bytes(net.weights.read_bytes()[:-1])
    with pytest.raises(CorruptArtifact):
        net.load(weights=[damaged, original])
    with pytest.raises(OptionsError, match="takes prepared weights there"):
        net.load(weights=[original_file(tmp_path, original), original])
    with pytest.raises(OptionsError, match="got a list, takes a file"):
        net.load(weights=[net.weights])


def original_file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.thorough
def test_any_byte_that_differs_is_found(net: Saved, tmp_path: Path) -> None:
    file, whole = tmp_path / "model.weights", net.weights.read_bytes()
    step = len(whole) // 200
    for at in (*range(100), *range(100, len(whole), step), len(whole) - 1):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        file.write_bytes(data)
        with pytest.raises((CorruptArtifact, IncompatibleArtifact)):
            net.load(weights=file)


def test_a_file_that_is_cut_off_is_found(net: Saved, tmp_path: Path) -> None:
    file, whole = tmp_path / "model.weights", net.weights.read_bytes()
    for size in (0, 7, 8, 63, 64, 4096, len(whole) - weights_file.PAGE, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(CorruptArtifact):
            net.load(weights=file)
    file.write_bytes(whole + bytes(weights_file.PAGE))
    with pytest.raises(CorruptArtifact):
        net.load(weights=file)
    file.write_bytes(whole[: -weights_file.PAGE] + bytes(weights_file.PAGE))  # a hole
    with pytest.raises(CorruptArtifact):
        net.load(weights=file)
    with pytest.raises(ArtifactError):
        net.load(weights=tmp_path / "none.weights")


def test_the_command_line_verifies_every_byte(net: Saved, tmp_path: Path) -> None:
    found = hotstart_verify(net.weights)
    assert found.returncode == 0, found.stderr
    data = bytearray(net.weights.read_bytes())
    data[-weights_file.PAGE : -weights_file.PAGE + 16] = data[-weights_file.PAGE + 8 :][:16]
    data[-9] ^= 1
    (tmp_path / "model.weights").write_bytes(data)
    found = hotstart_verify(tmp_path / "model.weights")
    assert found.returncode != 0
    assert "memory: expected SHA-256" in found.stderr + found.stdout


def hotstart_verify(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hotstart", "verify", str(file)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


# --- files ----------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_is_read_from_a_folder_that_cannot(
    net: Saved, tmp_path: Path
) -> None:
    folder = tmp_path / "fixed"
    folder.mkdir()
    weights = folder / "any name"
    weights.write_bytes(net.weights.read_bytes())
    weights.chmod(0o444)
    folder.chmod(0o555)
    assert torch.equal(net.load(weights=weights)(IDS), net.program(IDS))
    with pytest.raises(ArtifactError, match="expected a place that can be written"):
        net.program.save_weights(tmp_path / "none" / "model.weights")


KILLED = """
    import os, signal, sys
    import torch
    import hotstart
    from hotstart.artifact import disk
    program = hotstart.load(sys.argv[1], weights=sys.argv[2])
    disk.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    program.save_weights(sys.argv[3])
"""


def test_a_save_that_is_killed_leaves_the_old_file(net: Saved, tmp_path: Path) -> None:
    target = tmp_path / "model.weights"
    target.write_bytes(b"the old one")
    environment = {**os.environ, "PYTHONPATH": str(Path(hotstart.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), net.file, net.weights, target]
    done = subprocess.run([*map(str, command)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"the old one"
    net.program.save_weights(target)
    assert target.read_bytes() == net.weights.read_bytes()
