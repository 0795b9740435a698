"""Map a file of prepared weights, and check it meanwhile. Imports no torch."""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from hotstart.artifact import weights_compatibility, weights_file
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.weights_file import Stored
from hotstart.errors import CorruptArtifact, ModelMismatch
from hotstart.records.artifact import Artifact
from hotstart.runtime.one_thread import run_in_one_thread

T = TypeVar("T")


class MappedWeights(ABC, Generic[T]):
    """A file that `Program.save_weights` wrote, mapped copy-on-write; each tensor is made once.

    Args:
        source: the file.

    Attributes:
        where: its path.
        table: what it says of its tensors.

    Raises:
        ArtifactError: it cannot be read.
        CorruptArtifact: header or table are not what was written.
        IncompatibleArtifact: it has another format.
    """

    def __init__(self, source: OpenFile) -> None:
        opened = weights_file.read(source)
        self.where, self.table = source.name, opened.table
        self._begin = opened.begin
        self._memory = source.mapped()
        self._tensors: dict[int, T] = {}
        self._names = {number: name for name, number in reversed(opened.table.weights.items())}
        self._found = ""

    def require_fit(self, artifact: Artifact) -> None:
        """See that the weights were prepared for a program and this machine.

        Raises:
            IncompatibleArtifact: with every part that differs.
        """
        weights_compatibility.require_fit(self.where, self.table, artifact)

    def begin_check(self, digest: Callable[[], str], libtorch: ctypes.CDLL) -> None:
        """Begin to check the memory, on one core, beside what the caller goes on with.

        Args:
            digest: computes what `Table.sums` is of the memory as it was written.
            libtorch: the library that computes it.
        """
        self._digest = digest
        self._checking = threading.Thread(
            target=self._check_beside, args=(libtorch,), name="hotstart-check"
        )
        self._checking.start()

    def _check_beside(self, libtorch: ctypes.CDLL) -> None:
        run_in_one_thread(libtorch)
        self._check()

    def _check(self) -> None:
        self._found = self._digest()

    def require_whole(self) -> None:
        """Wait for the check that has begun.

        Raises:
            CorruptArtifact: the memory is not what was written.
        """
        self._checking.join()
        if not self._found:  # it failed, with an error that shows here
            self._check()
        if self._found != self.table.sums:
            raise weights_file.damaged(self.where, f"{self.table.sums} of its sums", self._found)

    def numbered(self, number: int) -> T:
        """Return a tensor of the table; a stand-in for a weight of which only packed values are.

        Raises:
            CorruptArtifact: it does not lie in its stretch.
        """
        if number not in self._tensors:
            try:
                self._tensors[number] = self._new(number, self.table.tensors[number])
            except (ValueError, RuntimeError) as error:
                expected = f"tensor {number} as hotstart writes it"
                raise CorruptArtifact(self.where, "table", expected, f"{error}") from error
        return self._tensors[number]

    @abstractmethod
    def _new(self, number: int, stored: Stored) -> T:
        """Make a tensor over the memory.

        Raises:
            ValueError, RuntimeError: the table says what cannot be.
        """

    def _name(self, number: int) -> str:
        return self._names.get(number, "a weight")


def no_values(name: str, where: str) -> ModelMismatch:
    """Explain that of a weight there is only what was packed of it in a file."""
    return ModelMismatch(
        [(name, "values", "only what was packed of them")],
        f"the file {where}",
        "Load the program with the original weights to read them.",
    )
