"""One of the ways to call a program: its generated entry, and what to say of calls it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hotstart.errors import ContractError
from hotstart.model import Model, method_of
from hotstart.records.artifact import CompiledCall
from hotstart.runtime.entry import Entry, Hooks
from hotstart.runtime.generated import run_source
from hotstart.runtime.signature import bind

Miss = Callable[[Sequence[Any], Sequence[Any], Mapping[str, Any]], Any]
"""Answers a call that does not fit, given the parameters' values, positional arguments beyond
those, and keyword arguments that the example did not have."""


class Caller:
    """Checks and runs calls of one kind.

    Attributes:
        call: what it was made from.
        variants: the sizes it serves, in order.
        source: the generated entry.
    """

    def __init__(self, call: CompiledCall, hooks: Hooks, first: int) -> None:
        """`first` is the number, among the functions that `hooks.bound` gives, of the first."""
        self.call = call
        self.variants = tuple(stitched.variant for stitched in call.stitched)
        self._entry = Entry(call.contract, self.variants, hooks, first)
        self.source = self._entry.source

    def function(self, miss: Miss) -> Callable[..., Any]:
        """The entry, as a function that hands every call it does not take to `miss`."""
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:8]
        scope = {**self._entry.objects, self._entry.miss: miss}
        made: Callable[..., Any] = run_source(self.source, f"hotstart/entry_{digest}.py", scope)[
            "call"
        ]
        return made

    def target(self, model: Model) -> Model:
        """What of a model the entry stands for: itself, or one of its methods."""
        return method_of(model, self.call.method)

    def takes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments is within the contract.

        Raises:
            TypeError: an argument is given twice.
        """
        return self._failed(args, kwargs) is None

    def refusal_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ContractError | None:
        """Why a call with these arguments is not taken; None if it is.

        Raises:
            TypeError: an argument is given twice.
        """
        failed = self._failed(args, kwargs)
        return None if failed is None else failed()

    def _failed(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Callable[[], ContractError] | None:
        return self._entry.checks.failed(*bind(self.call.contract.parameters, args, kwargs))
