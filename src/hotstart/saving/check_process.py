"""Run the variants of an artifact in a process that has its file and nothing else.

`python -m hotstart.saving.check_process FOLDER THREADS NUMBERS MODULE...`; the folder is a
`SharedFolder`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

import msgspec
import torch

from hotstart.artifact import container
from hotstart.artifact.read import to_artifact
from hotstart.errors import ArtifactError
from hotstart.model import contents
from hotstart.saving.examples import Example
from hotstart.saving.inputs import Real
from hotstart.saving.rehearsal import Rehearsal

ENDED = "the process was ended by"
"""Start of the error of an attempt that ended the process."""

_LENGTH = 300
"""Characters that are kept of an error's message."""


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """The result of running a variant on one choice of inputs.

    Attributes:
        variant: its number.
        choice: the number of the inputs among those to try.
        state: `"crashed"` where it ended the process.
        error: what was raised, or the name of the signal.
    """

    variant: int
    choice: int
    state: Literal["trying", "ran", "raised", "crashed"]
    error: str = ""


class SharedFolder:
    """A folder that both processes share: the file, real values, attempts and returned tensors."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "model.hot"
        self.folder = folder
        self._values = folder / "values"
        self._attempts = folder / "attempts"

    def returned(self, variant: int) -> Path:
        """Name the file with the tensors that a variant returned."""
        return self.folder / f"returned_{variant}"

    def keep(self, real: Real) -> None:
        """Write real values to the folder, and delete earlier attempts.

        Raises:
            ArtifactError: there is no room for them.
        """
        self._attempts.unlink(missing_ok=True)
        calls = {
            name: [(example.sizes, example.tensors, example.given) for example in examples]
            for name, examples in real.examples.items()
        }
        try:
            torch.save((calls, dict(real.weights)), self._values)
        except (OSError, RuntimeError) as error:  # the latter is what torch makes of the former
            raise ArtifactError(
                f"{self._values}: expected room for the values that the program is checked with, "
                f"found: {error}. Set TMPDIR to a folder with room, or save with check=False."
            ) from error

    def real(self) -> Real:
        """Load the real values; their memory is mapped from the file.

        Only numbers, text and tensors can be read.
        """
        calls, weights = torch.load(self._values, weights_only=True, mmap=True)
        examples = {name: [Example(*one) for one in given] for name, given in calls.items()}
        return Real(examples, weights)

    def note(self, attempt: Attempt) -> None:
        """Append an attempt in one write, so that a crash afterwards does not lose it."""
        with self._attempts.open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(attempt) + b"\n")

    def attempts(self) -> list[Attempt]:
        """Read all attempts, each as it ended."""
        if not self._attempts.exists():
            return []
        whole, _, _ = self._attempts.read_bytes().rpartition(b"\n")  # the rest is being written
        lines = whole.splitlines()
        noted = (msgspec.json.decode(line, type=Attempt) for line in lines)
        return list({(one.variant, one.choice): one for one in noted}.values())


def main(folder: str, threads: str, variants: str, *modules: str) -> None:
    """Try each variant of an artifact on its inputs in turn, until one choice runs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # inputs may end it, which is no news
    torch.set_num_threads(int(threads))
    for module in modules:
        importlib.import_module(module)
    shared = SharedFolder(Path(folder))
    rehearsal = Rehearsal(to_artifact(container.read(shared.file)))
    real = shared.real()
    _try_in_turn(rehearsal, json.loads(variants), real, shared)


def _try_in_turn(
    rehearsal: Rehearsal, variants: Sequence[int], real: Real, shared: SharedFolder
) -> None:
    """Try inputs in forked processes: a bad index ends one, where kernels have threads.

    This process has computed nothing, so it has no threads that a fork would lack.
    """
    turns = [(v, c) for v in variants for c in range(len(rehearsal.choices(v, real)))]
    while turns:
        child = os.fork()
        if child == 0:
            _work(rehearsal, turns, real, shared)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            if os.WEXITSTATUS(status):
                sys.exit(os.WEXITSTATUS(status))
            return
        attempts = shared.attempts()
        variant, choice = turns[0]
        if attempts and attempts[-1].state == "trying":
            variant, choice = attempts[-1].variant, attempts[-1].choice
        name = signal.Signals(os.WTERMSIG(status)).name
        shared.note(Attempt(variant, choice, "crashed", f"{ENDED} {name}"))
        turns = turns[turns.index((variant, choice)) + 1 :]


def _work(
    rehearsal: Rehearsal, turns: Sequence[tuple[int, int]], real: Real, shared: SharedFolder
) -> NoReturn:
    """Try inputs until every variant runs or has no more of them, and end this process."""
    try:
        done: set[int] = set()
        for variant, choice in turns:
            if variant not in done and _runs(rehearsal, variant, choice, real, shared):
                done.add(variant)
    except BaseException:  # noqa: BLE001  no other handler may run: this process is a copy
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _runs(
    rehearsal: Rehearsal, variant: int, choice: int, real: Real, shared: SharedFolder
) -> bool:
    """Try one choice of inputs, and save the tensors that are returned."""
    shared.note(Attempt(variant, choice, "trying"))
    inputs = rehearsal.choices(variant, real)[choice]
    with shared.returned(variant).open("wb") as returned:
        try:
            rehearsal.run(variant, inputs, real, lambda _, tensor: _write(returned, tensor))
        except Exception as error:  # noqa: BLE001  whatever operators raise for such inputs
            shared.note(Attempt(variant, choice, "raised", said(error)))
            return False
    shared.note(Attempt(variant, choice, "ran"))
    return True


def _write(returned: BinaryIO, tensor: torch.Tensor) -> None:
    returned.write(values_of(tensor))


def values_of(tensor: torch.Tensor) -> bytes:
    """Copy the values of a tensor that a unit returned."""
    found = contents(tensor)
    assert found is not None, "what a unit returns has values"
    return found


def said(error: Exception) -> str:
    """Write an error's class and the start of its message in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main(*sys.argv[1:])
