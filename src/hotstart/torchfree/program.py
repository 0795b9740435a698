"""A program that runs as native code in a process without Python's torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from msgspec.structs import replace

from hotstart.errors import ArtifactError
from hotstart.records.artifact import Artifact
from hotstart.records.contract import Contract
from hotstart.records.report import Report
from hotstart.runtime.base_program import BaseProgram
from hotstart.runtime.entry.generated_entry import Entry
from hotstart.torchfree.array_arguments import ArrayArguments
from hotstart.torchfree.binding import Binding
from hotstart.torchfree.libtorch import Libtorch
from hotstart.torchfree.mapped_arrays import Weight

_TAKES_TORCH = frozenset({"document", "save", "save_weights"})
"""Attributes of a program that this one has not."""


class TorchFreeProgram(BaseProgram):
    """A program in a process that has not imported torch.

    It is called as the model's forward is. Tensors are whatever has an array interface, DLPack or a
    buffer, such as numpy's arrays, or lists of numbers; results have `hotstart.torchfree.Array` in
    the places of tensors, which `numpy.asarray` reads without a copy.

    Where several calls were compiled, `program(...)` runs the first of the model's own whose
    contract takes the arguments, and `program["name"](...)` runs the one of that name.

    Attributes:
        artifact: what it was made from.
        model: None.
    """

    def __init__(
        self,
        artifact: Artifact,
        contracts: Sequence[Contract],
        binding: Binding,
        torch: Libtorch,
        report: Callable[[], Report],
    ) -> None:
        super().__init__(artifact)
        self.model = None
        self._report = report
        self._binding = binding
        arguments = ArrayArguments(torch, self._count_copy)
        for (call, first, meets), contract in zip(self._calls(), contracts, strict=True):
            meeting = binding.held.meeting if meets else None
            call = replace(call, contract=contract)
            self._add(Entry(call, first, arguments, binding, meeting))
        self._call = self._function(self._own)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the model on arrays.

        Raises:
            ContractError: the program was not built for such a call.
            ModelMismatch: a call has set an attribute to what was not compiled.
            TypeError: an argument is given twice.
        """
        return self._call(*args, **kwargs)

    @property
    def report(self) -> Report:
        """The record of what was loaded, and how long that took."""
        return self._report()

    def refresh(self) -> None:
        """Do nothing: nobody else has the weights, and calls notice what calls set."""

    def release_unpacked(self) -> int:
        """Return 0: weights that are only read packed are not in this process."""
        return 0

    @property
    def weights(self) -> dict[str, Weight]:
        """The arrays it runs with now, by the model's names; those that calls write to, too.

        They share memory with the program. Where only what was packed of a weight is here, a
        stand-in of its shape is in its place: to ask for its values is a `ModelMismatch`.
        """
        return self._binding.held.by_name()

    def __getattr__(self, name: str) -> NoReturn:
        if name in _TAKES_TORCH:
            raise AttributeError(
                f"{name}: expected a program of a process that has imported torch, found one that "
                "was loaded without. Import torch, and load the program again."
            )
        raise AttributeError(f"a program has no attribute {name!r}")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A program is neither copied nor pickled.

        Raises:
            ArtifactError: always; it says how to get another program.
        """
        raise ArtifactError(
            "expected a program to be loaded, found an attempt to copy or pickle it. Call "
            "hotstart.load with the same files, here or in another process."
        )

    def __repr__(self) -> str:
        return f"TorchFreeProgram({self._summary()})"
