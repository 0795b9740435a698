"""Programs for 64-bit Arm, built on x86-64 beside one that runs there."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch

import hotstart
from hotstart import Options
from hotstart.artifact import container, fingerprint
from hotstart.artifact.compatibility import best_that_fits, require_fit
from hotstart.errors import IncompatibleArtifact, OptionsError
from hotstart.records.artifact import Artifact
from hotstart.targets import this_architecture
from tests.integration.aarch64.subjects import SUBJECTS

CROSS = "aarch64-linux-gnu-g++"
LAYERS = SUBJECTS["layers"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        this_architecture() != "x86_64" or shutil.which(CROSS) is None,
        reason=f"it takes an x86-64 with {CROSS} (Debian's g++-aarch64-linux-gnu)",
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[hotstart.Program, Path]:
    program = hotstart.compile(
        LAYERS.model(),
        (LAYERS.inputs(3),),
        dynamic_shapes=LAYERS.shapes,
        options=Options(target=("native", "aarch64"), form="native"),
    )
    file = tmp_path_factory.mktemp("built") / "layers.hot"
    program.save(file)
    return program, file


def code_of(artifact: Artifact) -> dict[str, bytes]:
    """The native code of a program by name."""
    kernels = {name: bytes(each.data) for unit in artifact.units for name, each in unit.kernels}
    assert artifact.native is not None
    return {**kernels, "the program": bytes(artifact.native.library.data)}


def machine_of(code: bytes) -> int:
    """The architecture that an ELF file is for: 62 is x86-64, 183 is 64-bit Arm."""
    found: tuple[int] = struct.unpack_from("<H", code, 18)
    return found[0]


def as_arm(monkeypatch: pytest.MonkeyPatch, flags: str = "fp asimd crc32 atomics") -> None:
    """Make this process look like one on an Arm machine."""
    here = fingerprint.host()
    there = {
        "python": here["python"].replace("x86_64", "aarch64"),
        "platform": "linux-aarch64",
        "instructions": flags.split(),
    }
    monkeypatch.setattr(fingerprint, "host", lambda: {**here, **there})
    monkeypatch.setattr(fingerprint, "instructions", flags.split)


@pytest.mark.slow
def test_each_target_has_code_of_its_own_architecture(
    built: tuple[hotstart.Program, Path],
) -> None:
    native, arm = built[0].artifacts()
    assert {machine_of(code) for code in code_of(native).values()} == {62}
    assert {machine_of(code) for code in code_of(arm).values()} == {183}
    assert len(code_of(arm)) >= 3


@pytest.mark.slow
def test_kernels_compute_in_the_vectors_that_every_arm_has(
    built: tuple[hotstart.Program, Path], tmp_path: Path
) -> None:
    texts = {}
    for name, code in code_of(built[0].artifacts()[1]).items():
        file = tmp_path / "code.so"
        file.write_bytes(code)
        command = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(file)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        texts[name] = done.stdout
    assert any(re.search(r"\tfm(ul|la)\tv\d+\.4s", text) for text in texts.values())
    beyond = re.compile(r"\t\w+\t[zp]\d+\.|\t(sdot|udot|bfdot|bfmmla|smmla|fmlal|sqrdmlah)\t")
    assert not [name for name, text in texts.items() if beyond.search(text)]


def test_nothing_of_this_machine_is_linked(built: tuple[hotstart.Program, Path]) -> None:
    for name, code in code_of(built[0].artifacts()[1]).items():
        assert b"x86" not in code, name
        assert b"/site-packages/" not in code, name


def test_nothing_is_packed_and_units_are_not_said_to_be_proven(
    built: tuple[hotstart.Program, Path],
) -> None:
    for unit in built[0].artifacts()[1].units:
        assert not unit.preparations
        assert not unit.op_by_op
        assert not unit.proof.sizes
        assert unit.proof.skipped


def test_a_file_says_which_machines_take_the_code_for_arm(
    built: tuple[hotstart.Program, Path],
) -> None:
    parts = hotstart.inspect(built[1], "aarch64").fingerprint
    assert parts["platform"] == "linux-aarch64"
    assert "aarch64-linux-gnu" in parts["python"]
    assert "x86" not in parts["python"]
    assert re.fullmatch(r"glibc 2\.\d+", parts["libc"])
    assert parts["instructions"] == ["asimd", "fp"]


def test_this_machine_takes_its_own(built: tuple[hotstart.Program, Path]) -> None:
    program, file = built
    loaded = hotstart.load(file, LAYERS.model())
    assert loaded.report.target == program.report.target == "native"
    x = LAYERS.inputs(9)
    assert torch.equal(loaded(x), program(x))


def test_an_arm_machine_takes_the_other(
    built: tuple[hotstart.Program, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_arm(monkeypatch)
    contents = container.read(built[1], choose=best_that_fits)
    assert contents.target is not None
    assert contents.target.target == "aarch64"
    require_fit(contents, compare_source=True)


def test_a_processor_that_runs_neither_is_told_what_it_lacks(
    built: tuple[hotstart.Program, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fingerprint.host()
    monkeypatch.setattr(fingerprint, "host", lambda: {**here, "instructions": ["sse2"]})
    monkeypatch.setattr(fingerprint, "instructions", lambda: ["sse2"])
    with pytest.raises(IncompatibleArtifact) as raised:
        hotstart.load(built[1], LAYERS.model())
    text = str(raised.value)
    assert "instructions of native" in text
    assert "instructions of aarch64: expected a CPU with asimd, fp" in text
    assert "platform" not in text


def test_a_file_that_was_loaded_is_saved_with_both(
    built: tuple[hotstart.Program, Path], tmp_path: Path
) -> None:
    again = tmp_path / "again.hot"
    hotstart.load(built[1], LAYERS.model()).save(again)
    assert [each.target for each in hotstart.inspect(again).targets] == ["native", "aarch64"]


def test_programs_without_native_code_are_told_apart(tmp_path: Path) -> None:
    options = Options(target=("x86-64-v2", "aarch64"), compiler="op_by_op")
    program = hotstart.compile(LAYERS.model(), (LAYERS.inputs(3),), options=options)
    allowed = [each.fingerprint["instructions"] for each in program.artifacts()]
    assert allowed == [["sse2"], ["asimd"]]


def test_a_layer_that_becomes_a_librarys_runs_as_captured() -> None:
    steps = SUBJECTS["steps"]
    options = Options(target=("x86-64-v2", "aarch64"), prove="off")
    program = hotstart.compile(steps.model(), (steps.inputs(3),), options=options)
    sources = "".join(unit.source for unit in program.artifacts()[1].units)
    assert "mkldnn" not in sources


def test_one_target_that_this_machine_runs_is_asked_for() -> None:
    with pytest.raises(OptionsError, match=r"(?s)one that this machine runs.*\('native', 'aarch64"):
        hotstart.compile(LAYERS.model(), (LAYERS.inputs(3),), options=Options(target="aarch64"))


def test_a_cache_keeps_both(tmp_path: Path) -> None:
    options = Options(target=("x86-64-v2", "aarch64"), compiler="op_by_op")
    for _ in range(2):
        program = hotstart.compile(
            LAYERS.model(), (LAYERS.inputs(3),), options=options, cache=tmp_path
        )
        names = [each.fingerprint["target"] for each in program.artifacts()]
        assert names == ["x86-64-v2", "aarch64"]
