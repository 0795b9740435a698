"""Share what programs have in common, with Python's torch or without it. Imports no torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from hotstart.errors import ContractError
from hotstart.records.artifact import Artifact, CompiledCall
from hotstart.records.report import PieceInfo
from hotstart.records.shapes import labelled

log = logging.getLogger("hotstart.program")


class Refusing(Protocol):
    """An entry, which knows what it does not take."""

    def refusal_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ContractError | None:
        """Say why a call is not within the contract; None if it is."""


EntryT = TypeVar("EntryT", bound=Refusing)


class BaseProgram(Generic[EntryT]):
    """What a program is made of, and its calls by name.

    Args:
        artifact: what it is made from.

    Attributes:
        artifact: the same.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._entries: dict[str, EntryT] = {}
        self._own: list[EntryT] = []  # of calls of the model itself, not of its methods
        self._relayouts: dict[str, int] = {}
        self._counting = threading.Lock()

    def takes(self, /, *args: Any, **kwargs: Any) -> bool:
        """Tell whether a call of the model with these arguments is within the contract.

        Nothing is run.

        Raises:
            ModelMismatch: calls write to weights or arguments, so that it matters where the weights
                are, and the model is not what was compiled.
        """
        try:
            return any(entry.refusal_of(args, kwargs) is None for entry in self._own)
        except TypeError:
            return False

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

    def _calls(self) -> Iterator[tuple[CompiledCall, int, bool]]:
        """Each call, the number of its first function among all, and whether weights may be met.

        An argument that shares memory with a weight matters where a call writes to either.
        """
        first = 0
        writes = any(spec.mutated for spec in self.artifact.requirements.weights)
        for call in self.artifact.calls:
            contract = call.contract
            yield call, first, bool(contract.tensors and (writes or contract.mutated_args))
            first += len(call.stitched)

    def _add(self, call: CompiledCall, entry: EntryT) -> None:
        self._entries[call.name] = entry
        if not call.method:
            self._own.append(entry)

    def _named(self, name: str) -> EntryT:
        """The entry of a name.

        Raises:
            KeyError: no call of that name was compiled.
        """
        if name not in self._entries:
            raise KeyError(f"no call {name!r}; there are: {', '.join(self._entries)}")
        return self._entries[name]

    def _only_methods(self) -> ContractError:
        """The error of a call of the model itself where only calls of methods were compiled."""
        listed = ", ".join(f"program[{name!r}](...)" for name in self._entries)
        return ContractError("the model", "a call of itself", f"calls of methods: {listed}")

    def _count_copy(self, path: str, strides: Sequence[int]) -> None:
        """Count a copy of an argument; logged once for each argument."""
        with self._counting:
            if path not in self._relayouts:
                log.warning(
                    "%s: strides %s are not the compiled layout, so it is copied in every such "
                    "call; see Program.relayouts",
                    path,
                    strides,
                )
            self._relayouts[path] = self._relayouts.get(path, 0) + 1

    def _summary(self) -> str:
        """Pieces and variants, for its `repr`."""
        different = len({piece.digest for piece in self.pieces if piece.kind == "compiled"})
        variants = " | ".join(self.code)
        return f"{len(self.pieces)} pieces of which {different} different, variants: {variants}"
