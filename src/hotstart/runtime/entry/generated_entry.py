"""Generate the function that checks a call, chooses the variant and runs it. Imports no torch.

It has the parameters of the model's forward, so that Python itself binds the arguments; it checks
them against the contract, picks the variant, and calls it. A call that does not fit goes to `miss`
with all its arguments, before any piece has run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from hotstart.errors import ContractError
from hotstart.records.artifact import StitchedCall
from hotstart.records.shapes import Variant
from hotstart.runtime.code.generated import run_source
from hotstart.runtime.entry.argument_kind import ArgumentKind, Served
from hotstart.runtime.entry.by_parameter import bind_arguments
from hotstart.runtime.entry.checks import Checks
from hotstart.runtime.entry.sides import ByBranches
from hotstart.runtime.entry.signature import Signature
from hotstart.runtime.shared_memory import Meeting

Miss = Callable[[Sequence[Any], Sequence[Any], Mapping[str, Any]], Any]
"""Answers a call that does not fit, given the parameters' values, positional arguments beyond
those, and keyword arguments that the example did not have."""


class Entry:
    """One of the ways to call a program: its generated function, and what to say of a misfit.

    Args:
        call: what it is made from.
        first: the number, among the functions that `bound` gives, of the first of this call.
        kind: says how arguments are looked at, and given to these functions.
        bound: gives the functions of all variants of all calls.
        meeting: finds arguments that share memory with weights; None if calls write to neither.

    Attributes:
        call: the same.
        source: defines the function, `call`.
    """

    def __init__(
        self,
        call: StitchedCall,
        first: int,
        kind: ArgumentKind,
        bound: Callable[[], Sequence[Callable[..., Any]]],
        meeting: Meeting | None = None,
    ) -> None:
        self.call = call
        self._bound = bound
        self._kind = kind
        signature = Signature(call.contract.parameters)
        self._scope = signature.scope
        numbered = enumerate((stitched.variant for stitched in call.stitched), first)
        begun = {number: variant for number, variant in numbered if not variant.sides}
        others = len(begun) < len(call.stitched)
        self._branches = ByBranches(call, first) if others else None
        self._checks = Checks(call.contract, [*begun.values()], kind, signature, meeting)
        self._miss = self._scope.new("miss")
        self._refuse = f"return {self._miss}({signature.everything})"
        lines = [*signature.pops, *self._check()]
        if len(begun) == 1 and not begun[first].where:
            lines += self._run(str(first))
        else:
            chosen = self._scope.new("chosen")
            lines += [*self._choose(begun, chosen), *self._run(chosen)]
        body = "\n".join(f"    {line}" for line in lines)
        self.source = f"def call({signature.source}):\n{body}\n"

    def function(self, miss: Miss) -> Callable[..., Any]:
        """The function, which hands every call it does not take to `miss`."""
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:8]
        scope = {**self._scope.objects, self._miss: miss}
        made: Callable[..., Any] = run_source(self.source, f"hotstart/entry_{digest}.py", scope)[
            "call"
        ]
        return made

    def refusal_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ContractError | None:
        """Say why a call is not within the contract; None if it is.

        Raises:
            TypeError: an argument is given twice.
        """
        failed = self._checks.failed(*bind_arguments(self.call.contract.parameters, args, kwargs))
        return None if failed is None else failed()

    # --- the source -------------------------------------------------------------------------------

    def _check(self) -> Iterator[str]:
        for kind, steps in groupby(self._checks.steps, type):
            sources = [step if isinstance(step, str) else step.source for step in steps]
            if kind is str:
                yield from sources
            else:
                first, *others = sources
                yield from ("if not (", f"    {first}", *(f"    and {c}" for c in others), "):")
                yield f"    {self._refuse}"

    def _choose(self, variants: Mapping[int, Variant], chosen: str) -> Iterator[str]:
        """Choose the most specific variant that serves the call: sizes come after ranges."""
        word = "if"
        for number, variant in reversed([*variants.items()]):
            yield f"{word} {self._checks.sizes.serves(variant)}:"
            yield f"    {chosen} = {number}"
            word = "elif"
        yield from ("else:", f"    {self._refuse}")

    def _run(self, chosen: str) -> Iterator[str]:
        """Fetch the variant's function, and call it if no argument meets weights."""
        function = self._scope.new("run")
        bound = f"{self._scope.refer('bound', self._bound)}()"
        if self._branches is None:
            yield f"{function} = {bound}[{chosen}]"
        else:
            begin = self._scope.refer("beginning_with", self._branches.beginning_with)
            yield f"{function} = {begin}({bound}, {chosen})"
        checks, contract = self._checks, self.call.contract
        if checks.last is not None:
            yield from (f"if not ({checks.last.source}):", f"    {self._refuse}")
        objects = [checks.containers[number][1] for number in contract.objects]
        sizes = checks.sizes.variables
        served = Served(contract, self._scope, function, sizes, checks.tensors, objects)
        yield from self._kind.run(served)
