"""A load takes the best code that the machine runs, with torch, without it and from C."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from hotstart.artifact.disk import write
from hotstart.artifact.pool import parts_of_several
from hotstart.cli import main
from hotstart.errors import IncompatibleArtifact
from hotstart.saving import checked_parts
from hotstart.saving.save import _checked
from hotstart.targets import allowed_instructions
from tests.integration.alone import IDS, MASK, Encoder, Saved
from tests.integration.c_api import INCOMPATIBLE, Library, Program, Refused
from tests.integration.several_targets.encoders import LACKED, ON_V4, V3, V4, needing, pooled
from tests.opening import opens_library_alone

ROOT = Path(__file__).parents[3]

pytestmark = ON_V4


def test_a_build_runs_the_best_and_says_so(two: Saved, v4: Saved) -> None:
    report = two.program.report
    assert (report.target, report.targets) == (V4, (V4, V3))
    assert f"runs the code for {V4}, of {V4}, {V3}" in str(report)
    assert two.program.artifact.fingerprint["target"] == V4
    assert torch.equal(pooled(two.program), pooled(v4.program))
    with torch.no_grad():
        torch.testing.assert_close(pooled(two.program), Encoder()(IDS, MASK)["pooled"])


def test_a_build_for_one_target_does_not_speak_of_targets(v3: Saved) -> None:
    assert (v3.program.report.target, v3.program.report.targets) == ("", ())
    assert "runs the code for" not in str(v3.program.report)


def test_a_load_takes_the_best_and_says_so(
    two: Saved, v4: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hotstart"):
        program = hotstart.load(two.file, Encoder().eval())
    assert f"{two.file}: takes the code for {V4}, of {V4}, {V3}" in caplog.messages
    assert (program.report.target, program.report.targets) == (V4, (V4, V3))
    assert program.report.to_dict()["target"] == V4
    assert torch.equal(pooled(program), pooled(v4.program))


def test_a_load_takes_the_best_that_fits(lesser: Saved) -> None:
    program = hotstart.load(lesser.file, Encoder().eval())
    assert (program.report.target, program.report.targets) == (V3, (V4, V3))
    assert program.artifact.fingerprint["target"] == V3
    assert torch.equal(pooled(program), pooled(lesser.program))
    prepared = hotstart.load(lesser.file, weights=lesser.weights)
    assert prepared.report.target == V3
    assert torch.equal(pooled(prepared), pooled(lesser.program))


@opens_library_alone
@pytest.mark.parametrize(("kind", "target"), [("two", V4), ("lesser", V3)])
def test_a_load_without_torch_does_the_same(
    kind: str, target: str, request: pytest.FixtureRequest
) -> None:
    given: Saved = request.getfixturevalue(kind)
    found = given.without_torch(
        f"""
        result = program({IDS.tolist()}, {MASK.tolist()})
        report = program.report
        found = [result["pooled"].tolist(), report.target, report.targets, type(program).__name__]
        """
    )
    assert found[1:] == [target, [V4, V3], "TorchFreeProgram"]
    assert torch.equal(torch.tensor(found[0]), pooled(given.program))


@opens_library_alone
@pytest.mark.parametrize(("kind", "target"), [("two", V4), ("lesser", V3), ("v3", V3)])
def test_a_load_from_c_does_the_same(
    kind: str, target: str, request: pytest.FixtureRequest, library: Library
) -> None:
    given: Saved = request.getfixturevalue(kind)
    program = Program(library, given.file, given.weights)
    assert program.target() == target
    assert torch.equal(program(IDS, MASK)[0], pooled(given.program))


@opens_library_alone
def test_where_none_fits_the_error_has_what_each_takes(
    two: Saved, library: Library, tmp_path: Path
) -> None:
    best, other = two.program.artifacts()
    file = tmp_path / "model.hot"
    write(file, checked_parts(needing(best, LACKED, "avx1024bw"), needing(other, LACKED)))
    with pytest.raises(IncompatibleArtifact) as refused:
        hotstart.load(file, Encoder().eval())
    assert refused.value.differences == (
        (f"instructions of {V4}", "a CPU with avx1024bw, avx1024f", "a CPU without"),
        (f"instructions of {V3}", "a CPU with avx1024f", "a CPU without"),
    )
    with pytest.raises(Refused) as in_c:
        Program(library, file, two.weights)
    assert str(in_c.value) == str(refused.value)
    alone = two.without_torch(
        f"""
        try:
            hotstart.load({str(file)!r}, weights=sys.argv[2])
        except hotstart.IncompatibleArtifact as error:
            found = [str(error), "torch" in sys.modules]
        """
    )
    assert alone == [str(refused.value), False]
    assert main(["load-check", "--no-source", str(file)]) == 4


@opens_library_alone
def test_what_the_manifest_needs_counts_whatever_the_index_says(
    two: Saved, library: Library, tmp_path: Path
) -> None:
    best, other = two.program.artifacts()
    made = [_checked(needing(each, LACKED), None) for each in (best, other)]
    file = tmp_path / "model.hot"
    write(file, parts_of_several([each._replace(instructions=["sse2"]) for each in made]))
    with pytest.raises(IncompatibleArtifact) as refused:
        hotstart.load(file, Encoder().eval())
    assert refused.value.differences == (("instructions", "a CPU with avx1024f", "a CPU without"),)
    with pytest.raises(Refused) as in_c:
        Program(library, file, two.weights)
    assert str(in_c.value) == str(refused.value)


@opens_library_alone
def test_weights_that_were_prepared_for_another_target_are_refused(
    two: Saved, v3: Saved, lesser: Saved, library: Library
) -> None:
    for file, weights, target in ((two.file, v3.weights, V4), (lesser.file, two.weights, V3)):
        with pytest.raises(IncompatibleArtifact) as refused:
            hotstart.load(file, weights=weights)
        ((part, _, found),) = refused.value.differences
        assert part == "units"
        assert found.endswith(f", for {target}")
        with pytest.raises(Refused, match=rf"units: .*, for {target}") as in_c:
            Program(library, file, weights)
        assert in_c.value.status == INCOMPATIBLE


# --- on a lesser processor, emulated --------------------------------------------------------------

WITH_TORCH = """
import sys, torch, hotstart
from tests.integration.alone import Encoder, IDS, MASK
from tests.integration.c_api import Library, Program
file, weights, library = sys.argv[1:]
program = hotstart.load(file, Encoder().eval())
program.save_weights(weights)
with torch.no_grad():
    wanted = Encoder()(IDS, MASK)["pooled"]
found = program(IDS, MASK)["pooled"]
in_c = Program(Library(library), file, weights)
print(program.report.target, in_c.target(), torch.allclose(found, wanted, atol=1e-5),
      torch.equal(in_c(IDS, MASK)[0], found))
"""

WITHOUT_TORCH = """
import sys, hotstart
file, weights = sys.argv[1:]
program = hotstart.load(file, weights=weights)
print(program.report.target, len(program([[1, 2]], [[1.0, 0.0]])["pooled"].tolist()),
      "torch" in sys.modules)
"""


@pytest.mark.slow
@opens_library_alone
def test_a_haswell_takes_the_code_for_v3(
    two: Saved, library: Library, c_library: Path, tmp_path: Path
) -> None:
    """qemu passes on this machine's /proc/cpuinfo, where another is not given by `-L`."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("there is no qemu-x86_64 (package qemu-user)")
    (tmp_path / "root" / "proc").mkdir(parents=True)
    flags = " ".join(allowed_instructions("x86-64-v3", ()))
    (tmp_path / "root" / "proc" / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), *filter(None, sys.path)])
    weights = tmp_path / "haswell.weights"

    def run(code: str, *given: Any) -> list[str]:
        done = subprocess.run(
            [emulator, "-L", str(tmp_path / "root"), "-cpu", "Haswell",
             os.path.realpath(sys.executable), "-c", code, *map(str, given)],
            capture_output=True, text=True, timeout=900, cwd=ROOT, check=False,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.split()

    library_file = c_library / "libhotstart.so"
    assert run(WITH_TORCH, two.file, weights, library_file) == [V3, V3, "True", "True"]
    assert run(WITHOUT_TORCH, two.file, weights) == [V3, "1", "False"]
