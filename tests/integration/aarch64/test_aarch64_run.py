"""Programs that were built on x86-64 run on 64-bit Arm, and give what eager gives there.

`HOTSTART_AARCH64_PYTHON` names a command that is a Python of that architecture, with the torch that
is used here; CONTRIBUTING.md says how to make one that runs under qemu.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import hotstart
from hotstart import Options
from tests.integration.aarch64.subjects import SUBJECTS

COMMAND = os.environ.get("HOTSTART_AARCH64_PYTHON", "")
ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMMAND, reason="HOTSTART_AARCH64_PYTHON names no Python of an Arm"),
]


def on_arm(*arguments: str) -> Any:
    """What a module of the tests prints on Arm, as JSON."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [*shlex.split(COMMAND), *arguments],
        capture_output=True, text=True, timeout=3600, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SUBJECTS)
def test_an_arm_machine_runs_what_was_built_here(name: str, tmp_path: Path) -> None:
    subject = SUBJECTS[name]
    program = hotstart.compile(
        subject.model(),
        (subject.inputs(*subject.sizes[-1]),),
        dynamic_shapes=subject.shapes,
        options=Options(target=("native", "aarch64")),
    )
    program.save(tmp_path / "model.hot")
    found = on_arm("-m", "tests.integration.aarch64.on_arm", name, str(tmp_path / "model.hot"))
    assert found["machine"] == found["target"] == "aarch64"
    assert found["sizes"] == len(subject.sizes)
    assert not found["not_native"]
    assert bool(found["op_by_op"]) == (name == "steps")


def test_an_arm_machine_runs_one_without_torch(tmp_path: Path) -> None:
    """Weights as an Arm machine writes them; then arrays of NumPy, and no import of torch."""
    subject = SUBJECTS["layers"]
    program = hotstart.compile(
        subject.model(),
        (subject.inputs(3),),
        dynamic_shapes=subject.shapes,
        options=Options(target=("native", "aarch64"), form="native"),
    )
    file, weights = tmp_path / "model.hot", tmp_path / "model.weights"
    program.save(file)
    module = "tests.integration.aarch64.on_arm_without_torch"
    wanted = on_arm("-m", module, "write", str(file), str(weights))
    assert wanted["torch"]
    found = on_arm("-m", module, "run", str(file), str(weights))
    assert not found["torch"]
    assert found["values"] == wanted["values"]
