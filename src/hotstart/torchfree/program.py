"""A program that runs as native code in a process without Python's torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from msgspec.structs import replace

from hotstart.errors import ArtifactError, ContractError
from hotstart.records.artifact import Artifact, Contract, TensorSpec
from hotstart.records.report import Packed, PieceInfo, Report
from hotstart.records.shapes import labelled
from hotstart.runtime.passed import as_passed, bind
from hotstart.torchfree.arrays import Array
from hotstart.torchfree.binding import Binding
from hotstart.torchfree.entry import Entry
from hotstart.torchfree.library import Libtorch
from hotstart.torchfree.weights import Weight

log = logging.getLogger("hotstart.program")  # of which it takes the place

_TAKES_TORCH = frozenset({"entry_code", "save", "save_weights"})
"""Attributes of a program that this one has not."""


class TorchFreeProgram:
    """A program in a process that has not imported torch.

    It is called as the model's forward is. Tensors are whatever has an array interface, DLPack or a
    buffer, such as numpy's arrays, or lists of numbers; results have `hotstart.torchfree.Array` in
    the places of tensors, which `numpy.asarray` reads without a copy.

    Where several calls were compiled, `program(...)` runs the first of the model's own whose
    contract takes the arguments, and `program["name"](...)` runs the one of that name.

    Attributes:
        artifact: what it was made from.
        model: None.
        report: what was loaded, and how long that took.
    """

    def __init__(
        self,
        artifact: Artifact,
        contracts: Sequence[Contract],
        binding: Binding,
        torch: Libtorch,
        packed: Packed,
        report: Report,
    ) -> None:
        self.artifact = artifact
        self.model = None
        self.report = replace(report, packed=packed)
        self._binding = binding
        self._relayouts: dict[str, int] = {}
        self._counting = threading.Lock()
        self._entries: dict[str, Entry] = {}
        first = 0
        writes = any(spec.mutated for spec in artifact.requirements.weights)
        for call, contract in zip(artifact.calls, contracts, strict=True):
            looks = contract.tensors and (writes or contract.mutated_args)
            meeting = binding.held.meeting if looks else None
            entry = Entry(call, contract, first, binding, torch, self._count_copy, meeting)
            self._entries[call.name] = entry
            first += len(call.stitched)
        self._own = [entry for entry in self._entries.values() if not entry.method]

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the model on arrays.

        Raises:
            ContractError: the program was not built for such a call.
            ModelMismatch: a call has set an attribute to what was not compiled.
            TypeError: an argument is given twice.
        """
        if not self._own:
            listed = ", ".join(f"program[{name!r}](...)" for name in self._entries)
            raise ContractError("the model", "a call of itself", f"calls of methods: {listed}")
        return _run_first(self._own, args, kwargs)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The function that runs calls of one name only.

        Raises:
            KeyError: no call of that name was compiled.
        """
        if name not in self._entries:
            raise KeyError(f"no call {name!r}; there are: {', '.join(self._entries)}")
        return partial(_call, [self._entries[name]])

    def takes(self, /, *args: Any, **kwargs: Any) -> bool:
        """Whether a call of the model with these arguments is within the contract.

        Nothing is run.
        """
        try:
            return any(entry.refusal_of(args, kwargs) is None for entry in self._own)
        except TypeError:
            return False

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

    @property
    def code(self) -> dict[str, str]:
        """The stitched source, by variant; `name: variant` where calls have names."""
        return {
            labelled(call.name, stitched.variant): stitched.source
            for call in self.artifact.calls
            for stitched in call.stitched
        }

    @property
    def pieces(self) -> tuple[PieceInfo, ...]:
        """The pieces, with name, digest, kind, layers and what each reuses."""
        return self.artifact.pieces

    @property
    def relayouts(self) -> dict[str, int]:
        """By argument, how many calls had it copied because its layout was not the compiled one."""
        return dict(self._relayouts)

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
        different = len({piece.digest for piece in self.pieces if piece.kind == "compiled"})
        variants = " | ".join(self.code)
        return (
            f"TorchFreeProgram({len(self.pieces)} pieces of which {different} different, "
            f"variants: {variants})"
        )

    def _count_copy(self, spec: TensorSpec, array: Array) -> None:
        """Count a copy of an argument; logged once for each argument."""
        with self._counting:
            if spec.path not in self._relayouts:
                log.warning(
                    "%s: strides %s are not the compiled layout, so it is copied in every such "
                    "call; see Program.relayouts",
                    spec.path,
                    array.strides,
                )
            self._relayouts[spec.path] = self._relayouts.get(spec.path, 0) + 1


def _call(entries: Sequence[Entry], /, *args: Any, **kwargs: Any) -> Any:
    return _run_first(entries, args, kwargs)


def _run_first(entries: Sequence[Entry], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run the first of several calls that takes the arguments.

    Raises:
        ContractError: none does, with what each says.
    """
    for entry in entries:
        try:
            checked = entry.checked(args, kwargs)
        except ContractError:
            if len(entries) == 1:
                raise
            parameters = entry.contract.parameters
            args, kwargs = as_passed(parameters, *bind(parameters, args, kwargs))
            continue
        return entry.run(checked)
    errors = {entry.name: entry.refusal_of(args, kwargs) for entry in entries}
    raise ContractError.of_all({name: e for name, e in errors.items() if e is not None})
