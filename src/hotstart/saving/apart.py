"""The process that has nothing but an artifact's file, and says how its variants run from that.

`python -m hotstart.saving.apart FOLDER THREADS NUMBERS MODULE...`, with what is in the folder
told by `Place`.
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
from hotstart.artifact.read import unpack
from hotstart.errors import ArtifactError
from hotstart.model import contents
from hotstart.saving.examples import Example
from hotstart.saving.inputs import Real
from hotstart.saving.rehearsal import Rehearsal

ENDED = "the process was ended by"
"""How the error of an attempt begins that no operator raised."""

_LENGTH = 300
"""How many characters of an error's message are kept."""


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """How one choice of inputs went.

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


class Place:
    """A folder that two processes share: the file, real values, attempts, and what was returned."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "model.hot"
        self.folder = folder
        self._values = folder / "values"
        self._attempts = folder / "attempts"

    def returned(self, variant: int) -> Path:
        """The file with all that a variant returned."""
        return self.folder / f"returned_{variant}"

    def keep(self, real: Real) -> None:
        """Write real values down, and forget earlier attempts.

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
        """The values that were written down. Their memory is the file's, and read only when used.

        What is read can hold nothing but numbers, text and tensors.
        """
        calls, weights = torch.load(self._values, weights_only=True, mmap=True)
        examples = {name: [Example(*one) for one in given] for name, given in calls.items()}
        return Real(examples, weights)

    def note(self, attempt: Attempt) -> None:
        """Add an attempt, in one write, so that it is there whatever happens next."""
        with self._attempts.open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(attempt) + b"\n")

    def attempts(self) -> list[Attempt]:
        """All attempts, each as it ended."""
        if not self._attempts.exists():
            return []
        lines = self._attempts.read_bytes().splitlines()
        noted = (msgspec.json.decode(line, type=Attempt) for line in lines)
        return list({(one.variant, one.choice): one for one in noted}.values())


def main(folder: str, threads: str, variants: str, *modules: str) -> None:
    """Try variants of an artifact on the inputs there are for each, until one runs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # inputs may end it, which is no news
    torch.set_num_threads(int(threads))
    for module in modules:
        importlib.import_module(module)
    place = Place(Path(folder))
    rehearsal = Rehearsal(unpack(container.read(place.file)))
    real = place.real()
    _try_in_turn(rehearsal, json.loads(variants), real, place)


def _try_in_turn(rehearsal: Rehearsal, variants: Sequence[int], real: Real, place: Place) -> None:
    """Try inputs, in a process of their own: a bad index ends it where kernels have threads.

    Nothing was computed in this one, so that none of its threads is missing in another.
    """
    turns = [(v, c) for v in variants for c in range(len(rehearsal.choices(v, real)))]
    while turns:
        child = os.fork()
        if child == 0:
            _work(rehearsal, turns, real, place)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            if os.WEXITSTATUS(status):
                sys.exit(os.WEXITSTATUS(status))
            return
        attempts = place.attempts()
        variant, choice = turns[0]
        if attempts and attempts[-1].state == "trying":
            variant, choice = attempts[-1].variant, attempts[-1].choice
        name = signal.Signals(os.WTERMSIG(status)).name
        place.note(Attempt(variant, choice, "crashed", f"{ENDED} {name}"))
        turns = turns[turns.index((variant, choice)) + 1 :]


def _work(
    rehearsal: Rehearsal, turns: Sequence[tuple[int, int]], real: Real, place: Place
) -> NoReturn:
    """Try inputs until every variant runs or has no others, and end this process."""
    try:
        done: set[int] = set()
        for variant, choice in turns:
            if variant not in done and _runs(rehearsal, variant, choice, real, place):
                done.add(variant)
    except BaseException:  # noqa: BLE001  no other handler may run: this process is a copy
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _runs(rehearsal: Rehearsal, variant: int, choice: int, real: Real, place: Place) -> bool:
    """Try one choice of inputs, and write down what the variant returns."""
    place.note(Attempt(variant, choice, "trying"))
    inputs = rehearsal.choices(variant, real)[choice]
    with place.returned(variant).open("wb") as returned:
        try:
            rehearsal.run(variant, inputs, real, lambda _, tensor: _write(returned, tensor))
        except Exception as error:  # noqa: BLE001  whatever operators raise for such inputs
            place.note(Attempt(variant, choice, "raised", said(error)))
            return False
    place.note(Attempt(variant, choice, "ran"))
    return True


def _write(returned: BinaryIO, tensor: torch.Tensor) -> None:
    returned.write(values_of(tensor))


def values_of(tensor: torch.Tensor) -> bytes:
    """The values of a tensor that a unit returned."""
    found = contents(tensor)
    assert found is not None, "what a unit returns has values"
    return found


def said(error: Exception) -> str:
    """An error's class and the start of its message, in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main(*sys.argv[1:])
