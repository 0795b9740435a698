"""Run a variant for a caller that has checked its inputs, as Dynamo does with its guards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from hotstart._torch.running.modes import set_grad_enabled
from hotstart.errors import ContractError
from hotstart.runtime.code.generated import run_source
from hotstart.runtime.shared_memory import are_apart
from hotstart.runtime.tensors import TensorMemory

FlatCall = Callable[..., tuple[object, ...]]


def flat_source(
    inputs: Sequence[str], sizes: Sequence[str], arguments: Sequence[str], watched: Sequence[str]
) -> str:
    """Source of `bind(run, require_apart, is_grad_enabled, set_grad_enabled) -> call`.

    A call finds the sizes, in the order of the axes, and switches autograd off, as a program's own
    entry does.

    Args:
        inputs: a name for each input.
        sizes: for each axis an expression over those names.
        arguments: the names of those that are tensors.
        watched: the names of those whose places in memory have to be looked at.
    """
    run = f"run({', '.join([*sizes, *arguments])})"
    look = f"require_apart([{', '.join(watched)}])" if watched else "pass  # writes to no input"
    return f"""def bind(run, require_apart, is_grad_enabled, set_grad_enabled):
    def call({", ".join(inputs)}):
        {look}
        if not is_grad_enabled():
            return {run}
        set_grad_enabled(False)
        try:
            return {run}
        finally:
            set_grad_enabled(True)

    return call
"""


def bind_flat(source: str, filename: str, run: FlatCall, apart: Apart) -> FlatCall:
    """The function that `flat_source` describes."""
    make = run_source(source, filename, {})["bind"]
    call: FlatCall = make(run, apart.require, torch.is_grad_enabled, set_grad_enabled())
    return call


class Apart:
    """Refuses calls in which a written tensor overlaps one that it did not overlap at the build.

    Compiled code that writes to an input assumes that the others do not overlap it. Dynamo's guards
    tell whether two inputs are the same tensor, and not whether they share memory.

    Args:
        names: what to call the tensors in errors.
        tensors: those that may overlap, as they are at the build.
        written: the numbers of those that are written to.
    """

    def __init__(
        self, names: Sequence[str], tensors: Sequence[torch.Tensor], written: Collection[int]
    ) -> None:
        self._names = names
        self._written = written
        self._memory = TensorMemory()
        self._known = frozenset(self._memory.pairs_that_meet(tensors, written))

    def require(self, tensors: Sequence[torch.Tensor]) -> None:
        """Raise if tensors overlap that did not at the build.

        Raises:
            ContractError: two of them do, and one of these is written to.
        """
        if are_apart(map(TensorMemory.around, tensors)):
            return
        for pair in self._memory.pairs_that_meet(tensors, self._written) - self._known:
            written, other = pair if pair[0] in self._written else pair[::-1]
            raise ContractError(
                self._names[written],
                f"a tensor that overlaps {self._names[other]} in memory",
                "a tensor of its own, since the model writes to it and it was one when compiled",
                "pass a .clone(), or call torch.compiler.reset()",
            )
