"""Prove that an artifact runs from its bytes alone, and that every piece returns what it should.

`python -m hotstart.packaging.check FILE OUT THREADS MODULE...` is a process that has nothing else:
no compiler on its PATH, no caches, no home. It writes down what every piece returns; the process
that saves does the same with what was built, and compares.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from hotstart import container
from hotstart.errors import ArtifactError
from hotstart.ir import Artifact
from hotstart.loading import unpack
from hotstart.packaging.rehearsal import rehearse
from hotstart.tensors import contents

_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2}


def compare(artifact: Artifact, parts: Sequence[bytes]) -> dict[str, Any]:
    """Run an artifact here, and from its bytes in a process of its own, and compare.

    Returns:
        How many tensors were compared, whether all were equal bit by bit, and the largest
        difference.

    Raises:
        ArtifactError: the artifact does not run by itself, or a piece returns something else.
    """
    with tempfile.TemporaryDirectory(prefix="hotstart-check-") as folder:
        file, out = Path(folder, "model.hot"), Path(folder, "returned")
        container.write(file, parts)
        _run_apart(artifact, file, out, Path(folder, "none"))
        with out.open("rb") as returned:
            comparison = _Comparison(returned)
            rehearse(artifact, comparison.note)
            return comparison.finished()


def _run_apart(artifact: Artifact, file: Path, out: Path, nowhere: Path) -> None:
    """Run a file in a process of its own; with the model's modules imported if it needs them."""
    modules = [name for name in artifact.fingerprint.get("sources", {}) if ":" not in name]
    environment = {
        **{k: v for k, v in os.environ.items() if k.startswith(("OMP_", "MKL_", "LD_", "KMP_"))},
        "PATH": str(nowhere),
        "HOME": str(nowhere),
        "TORCHINDUCTOR_CACHE_DIR": str(nowhere),
        "TRITON_CACHE_DIR": str(nowhere),
        "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path),
    }
    command = [sys.executable, "-m", __name__, str(file), str(out), str(torch.get_num_threads())]
    # What an operator of the model's own needs is found only once its module is imported.
    lines: list[str] = []
    for needed in ([], modules) if modules else ([],):
        done = subprocess.run(
            [*command, *needed], env=environment, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode == 0:
            return
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise ArtifactError(
        "expected the program to run from its file alone, in a process without a compiler; found: "
        f"{lines[-1]}\nImport what it needs in a module that forward is defined in, or save with "
        "check=False to skip this.\n" + "\n".join(lines[-20:])
    )


class _Comparison:
    """Compares tensors with those that another process wrote down, one after the other."""

    def __init__(self, returned: BinaryIO) -> None:
        self._returned = returned
        self._tensors = 0
        self._exact = True
        self._largest = 0.0

    def note(self, name: str, tensor: torch.Tensor) -> None:
        mine = _bytes(tensor)
        theirs = self._returned.read(len(mine))
        self._tensors += 1
        if mine == theirs:
            return
        if len(mine) != len(theirs):
            raise ArtifactError(f"unit {name} returned less from the file than in this process")
        self._exact = False
        inexact = tensor.is_floating_point() or tensor.is_complex()
        here, other = (torch.frombuffer(bytearray(m), dtype=tensor.dtype) for m in (mine, theirs))
        limit = _TOLERANCE.get(tensor.dtype, 1e-4)
        if not inexact or not torch.allclose(here, other, rtol=limit, atol=limit, equal_nan=True):
            raise ArtifactError(
                f"unit {name} returns something else from the file than in this process: expected "
                "equal results. This is a defect of hotstart; please report it."
            )
        self._largest = max(self._largest, float((here - other).abs().nan_to_num().max()))

    def finished(self) -> dict[str, Any]:
        """What was found.

        Raises:
            ArtifactError: the other process returned more.
        """
        if self._returned.read(1):
            raise ArtifactError("the program returned more from its file than in this process")
        return {"tensors": self._tensors, "exact": self._exact, "max_error": self._largest}


def _bytes(tensor: torch.Tensor) -> bytes:
    found = contents(tensor)
    assert found is not None, "what a unit returns has values"
    return found


def main(file: str, out: str, threads: str, *modules: str) -> None:
    """Run an artifact from its file and write down what its pieces return."""
    torch.set_num_threads(int(threads))
    for module in modules:
        importlib.import_module(module)
    artifact = unpack(container.read(file))
    with Path(out).open("wb") as returned:

        def note(_: str, tensor: torch.Tensor) -> None:
            returned.write(_bytes(tensor))

        rehearse(artifact, note)


if __name__ == "__main__":
    main(*sys.argv[1:])
