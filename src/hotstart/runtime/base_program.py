"""Share what programs have in common, with Python's torch or without it. Imports no torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hotstart import telemetry
from hotstart.errors import ContractError
from hotstart.records.artifact import Artifact, StitchedCall
from hotstart.records.report import PieceInfo
from hotstart.records.shapes import labelled
from hotstart.runtime.entry.by_parameter import as_passed
from hotstart.runtime.entry.generated_entry import Entry

log = logging.getLogger("hotstart.program")


class BaseProgram:
    """Artifact and calls of a program, with or without torch.

    Args:
        artifact: what it is made from.

    Attributes:
        artifact: the same.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._entries: dict[str, Entry] = {}
        self._own: list[Entry] = []  # of calls of the model itself, not of its methods
        self._functions: dict[str, Callable[..., Any]] = {}  # by name of a call
        self._relayouts: dict[str, int] = {}
        self._counting = threading.Lock()

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The function that runs calls of one name only.

        Raises:
            KeyError: no call of that name was compiled.
        """
        if name not in self._functions:
            if name not in self._entries:
                raise KeyError(f"no call {name!r}; there are: {', '.join(self._entries)}")
            self._functions[name] = self._function([self._entries[name]])
        return self._functions[name]

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
    def entry_code(self) -> str:
        """The source of the entries, which check a call and choose the variant."""
        sources = {name: entry.source for name, entry in self._entries.items()}
        return "\n\n".join(f"# {name}\n{text}" if name else text for name, text in sources.items())

    @property
    def pieces(self) -> tuple[PieceInfo, ...]:
        """The pieces, with name, digest, kind, layers and what each reuses."""
        return self.artifact.pieces

    @property
    def relayouts(self) -> dict[str, int]:
        """By argument, how many calls had it copied because its layout was not the compiled one."""
        return dict(self._relayouts)

    def _calls(self) -> Iterator[tuple[StitchedCall, int, bool]]:
        """Each call, the number of its first function among all, and whether weights may be met.

        An argument that shares memory with a weight matters where a call writes to either.
        """
        first = 0
        writes = any(spec.mutated for spec in self.artifact.requirements.weights)
        for call in self.artifact.calls:
            contract = call.contract
            yield call, first, bool(contract.tensors and (writes or contract.mutated_args))
            first += len(call.stitched)

    def _add(self, entry: Entry) -> None:
        self._entries[entry.call.name] = entry
        if not entry.call.method:
            self._own.append(entry)

    def _function(self, entries: Sequence[Entry]) -> Callable[..., Any]:
        """A function that runs the first of several calls that takes the arguments.

        Each entry hands what it does not take to the next one, and nothing has run by then.
        """
        following: Callable[..., Any] | None = None
        for entry in reversed(entries):
            miss = partial(self._miss, entries)
            if following is not None:
                miss = partial(_pass_on, entry, following)
            following = entry.function(miss)
        return following or self._refuse

    def _refuse(self, /, *_: Any, **__: Any) -> Any:
        """Refuse a call of the model itself where only calls of methods were compiled."""
        listed = ", ".join(f"program[{name!r}](...)" for name in self._entries)
        raise ContractError("the model", "a call of itself", f"calls of methods: {listed}")

    def _miss(
        self,
        entries: Sequence[Entry],
        values: Sequence[Any],
        excess: Sequence[Any],
        unknown: Mapping[str, Any],
    ) -> Any:
        """Answer a call that none of `entries` takes, bound by the last."""
        *_, entry = entries
        args, kwargs = as_passed(entry.call.contract.parameters, values, excess, unknown)
        errors = {each.call.name: each.refusal_of(args, kwargs) for each in entries}
        error = ContractError.of_all({name: e for name, e in errors.items() if e is not None})
        return self._missed(error, entry, args, kwargs)

    def _missed(
        self, error: ContractError, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Answer a call that is outside the contract of an entry, and of those before it.

        Raises:
            ContractError: with the argument, what the call passed and what the program takes.
        """
        telemetry.count("hotstart.calls.outside_contract", policy="error")
        raise error

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


def _pass_on(
    entry: Entry,
    function: Callable[..., Any],
    values: Sequence[Any],
    excess: Sequence[Any],
    unknown: Mapping[str, Any],
) -> Any:
    """Hand a call that one entry does not take to the next."""
    args, kwargs = as_passed(entry.call.contract.parameters, values, excess, unknown)
    return function(*args, **kwargs)
