"""Check that an artifact runs from its bytes alone, and that every piece returns the same.

A process without a compiler on its PATH, caches or a home runs the file (see `apart`), and writes
down what every piece returns. This process runs what was built, and compares.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from hotstart.artifact import disk
from hotstart.errors import ArtifactError, HotstartError
from hotstart.events import Listener
from hotstart.records.artifact import Artifact
from hotstart.runtime.weights.weight_source import Source
from hotstart.saving import check_process
from hotstart.saving.check_process import ENDED, Attempt, SharedFolder, said, values_of
from hotstart.saving.check_progress import CheckProgress
from hotstart.saving.examples import Example
from hotstart.saving.inputs import Real, real_weights
from hotstart.saving.rehearsal import Rehearsal

_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2}
_LISTED = 3
"""Errors to list for a variant that runs on no inputs."""
_MISSING = (
    "AttributeError: '_OpNamespace'",
    "ModuleNotFoundError",
    "ImportError",
    "hotstart.ArtifactError",
    "ArtifactError",
)
"""Starts of errors about an operator, a module or a class that is missing."""


@dataclass(frozen=True)
class Checked:
    """The result of a comparison.

    Attributes:
        tensors: how many were compared.
        exact: whether all of them were equal bit by bit.
        max_error: the largest difference.
        unchecked: the names of variants for which no inputs were found, with what was raised.
    """

    tensors: int = 0
    exact: bool = True
    max_error: float = 0.0
    unchecked: tuple[tuple[str, str], ...] = ()


def compare(
    artifact: Artifact,
    parts: Sequence[bytes],
    examples: Mapping[str, Sequence[Example]],
    source: Source,
    listener: Listener | None = None,
) -> Checked:
    """Run an artifact here, and from its bytes in a process of its own, and compare.

    Args:
        artifact: what was built.
        parts: its file.
        examples: calls to run it on, by name; where these do not fit or fail, others are made up.
        source: has the weights. Integers are taken from it; floating-point numbers only if nothing
            runs on made-up ones.
        listener: is told of each variant twice: when it has run from the file, by another thread of
            this process, and when its results were compared.

    Raises:
        ArtifactError: the artifact does not run by itself, or a piece returns something else.
    """
    with tempfile.TemporaryDirectory(prefix="hotstart-check-") as folder:
        shared = SharedFolder(Path(folder))
        disk.write(shared.file, parts)
        return _Check(artifact, shared, listener).compared(examples, source)


class _Check:
    """Runs the same variants on the same inputs in two processes."""

    def __init__(self, artifact: Artifact, shared: SharedFolder, listener: Listener | None) -> None:
        self._shared = shared
        self._rehearsal = Rehearsal(artifact)
        self._progress = CheckProgress(self._rehearsal.names, listener)
        self._requirements = artifact.requirements
        # What an operator of the model's own needs is found only once its module is imported.
        sources = artifact.fingerprint.get("sources", {})
        self._modules = [name for name in sources if ":" not in name]

    def compared(self, examples: Mapping[str, Sequence[Example]], source: Source) -> Checked:
        names = self._rehearsal.names
        real = Real(examples, real_weights(self._requirements, source.values(), floats=False))
        found, failed = self._run(range(len(names)), real)
        if failed:
            weights = real_weights(self._requirements, source.values(), floats=True)
            if len(weights) > len(real.weights):
                more, failed = self._run(list(failed), Real(examples, weights))
                found += more
        return Checked(
            sum(one.tensors for one in found),
            all(one.exact for one in found),
            max((one.max_error for one in found), default=0.0),
            tuple((names[number], reason) for number, reason in failed.items()),
        )

    def _run(self, variants: Sequence[int], real: Real) -> tuple[list[Checked], dict[int, str]]:
        """Run variants in both processes; return by number why no inputs were found for some.

        Raises:
            ArtifactError: something runs here and not there, or the results differ.
        """
        problem, attempts = self._apart(variants, real, [])
        if problem and self._modules:
            problem, attempts = self._apart(variants, real, self._modules)
        if problem:
            raise _not_alone(problem)
        found: list[Checked] = []
        failed: dict[int, str] = {}
        for number, tried in attempts.items():
            if _ran(tried):
                found.append(self._comparison(number, tried[-1].choice, real))
                self._progress.compared(number)
            else:
                failed[number] = self._reason(number, tried, real)
        return found, failed

    def _apart(
        self, variants: Sequence[int], real: Real, modules: Sequence[str]
    ) -> tuple[str, dict[int, list[Attempt]]]:
        """Run variants in the other process, with modules imported.

        Returns:
            The error of something that fails only there, and the attempts by variant.
        """
        self._shared.keep(real)
        with self._progress.following(self._shared):
            problem = _run_apart(self._shared, variants, modules)
        attempts: dict[int, list[Attempt]] = {number: [] for number in variants}
        for attempt in self._shared.attempts():
            attempts[attempt.variant].append(attempt)
        for number, tried in attempts.items():
            if not problem and not _ran(tried):
                problem = self._only_there(number, tried, real)
        return problem, attempts

    def _only_there(self, number: int, tried: Sequence[Attempt], real: Real) -> str:
        """Find an error that the same inputs do not raise here; empty if they all do.

        Inputs that ended the other process are not tried, since they would end this one too; if
        all did, the last error is returned.
        """
        choices = self._rehearsal.choices(number, real)
        raised = [attempt for attempt in tried if attempt.state == "raised"]
        for attempt in raised:
            try:
                self._rehearsal.run(number, choices[attempt.choice], real, lambda *_: None)
            except Exception:  # noqa: BLE001  whatever operators raise for such inputs
                continue
            return attempt.error
        return "" if raised else tried[-1].error

    def _reason(self, number: int, tried: Sequence[Attempt], real: Real) -> str:
        """List what was raised for which inputs: each different error once, up to `_LISTED`."""
        choices = self._rehearsal.choices(number, real)
        different: dict[str, str] = {}
        for attempt in tried:
            different.setdefault(attempt.error, choices[attempt.choice].about)
        listed = [f"{about}: {error}" for error, about in different.items()]
        return "; ".join(listed[:_LISTED])

    def _comparison(self, number: int, choice: int, real: Real) -> Checked:
        """Run a variant here, and compare it with the results of the other process."""
        inputs = self._rehearsal.choices(number, real)[choice]
        with self._shared.returned(number).open("rb") as returned:
            comparison = Comparison(returned)
            try:
                self._rehearsal.run(number, inputs, real, comparison.note)
            except HotstartError:
                raise
            except Exception as error:
                raise ArtifactError(
                    f"variant {self._rehearsal.names[number]}: expected it to run here as it does "
                    f"from its file, found: {said(error)}. An operator that it calls does not do "
                    "the same in every process; save with check=False if that is as it should be."
                ) from error
            return comparison.finished()


def _ran(tried: Sequence[Attempt]) -> bool:
    return bool(tried) and tried[-1].state == "ran"


def _run_apart(shared: SharedFolder, variants: Sequence[int], modules: Sequence[str]) -> str:
    """Run variants of a file in a new process; return its output if it failed as a whole."""
    nowhere = str(shared.folder / "none")
    environment = {
        **{k: v for k, v in os.environ.items() if k.startswith(("OMP_", "MKL_", "LD_", "KMP_"))},
        "PATH": nowhere,
        "HOME": nowhere,
        "TORCHINDUCTOR_CACHE_DIR": nowhere,
        "TRITON_CACHE_DIR": nowhere,
        "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path),
    }
    command = [sys.executable, "-m", check_process.__name__, str(shared.folder)]
    command += [str(torch.get_num_threads()), json.dumps(list(variants)), *modules]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return ""
    return done.stderr.strip() or f"exit status {done.returncode}"


def _not_alone(found: str) -> ArtifactError:
    lines = found.splitlines()
    if lines[-1].startswith(_MISSING):
        advice = "Import what it needs in a module that forward is defined in"
    elif lines[-1].startswith(ENDED):
        advice = "Pass inputs that the model takes as check_inputs"
    else:
        advice = (
            "In this process that does not happen, so something is set up here that is not in the "
            "file. Set it up in a module that forward is defined in"
        )
    told = "".join(f"\n{line}" for line in lines[-20:]) if len(lines) > 1 else ""
    return ArtifactError(
        "expected the program to run from its file alone, in a process without a compiler; found: "
        f"{lines[-1]}\n{advice}, or save with check=False to skip this.{told}"
    )


class Comparison:
    """Compares tensors with those of another process, one after the other."""

    def __init__(self, returned: BinaryIO) -> None:
        self._returned = returned
        self._tensors = 0
        self._exact = True
        self._largest = 0.0

    def note(self, name: str, tensor: torch.Tensor) -> None:
        """Compare the next tensor, which the named unit returned here.

        Raises:
            ArtifactError: it differs.
        """
        mine = values_of(tensor)
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

    def finished(self) -> Checked:
        """Return the result.

        Raises:
            ArtifactError: the other process returned more.
        """
        if self._returned.read(1):
            raise ArtifactError("the program returned more from its file than in this process")
        return Checked(self._tensors, self._exact, self._largest)
