"""Run a variant for a caller that has checked its inputs, as Dynamo does with its guards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from hotstart import _torch
from hotstart.errors import ContractError
from hotstart.records.shapes import spanned
from hotstart.runtime.generated import run_source

FlatCall = Callable[..., tuple[object, ...]]


def flat_source(
    inputs: Sequence[str], sizes: Sequence[str], arguments: Sequence[str], watched: Sequence[str]
) -> str:
    """Source of `bind(run, require_apart, is_grad_enabled, set_grad_enabled) -> call`.

    What is left to do in a call is to find the sizes, in the order of the axes, and to switch
    autograd off, as a program's own entry does.

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
    call: FlatCall = make(run, apart.require, torch.is_grad_enabled, _torch.set_grad_enabled())
    return call


class Apart:
    """Notices that a tensor which is written to overlaps one that it did not overlap at the build.

    Compiled code that writes to one of its inputs takes the others to be elsewhere. Dynamo's guards
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
        self._known = frozenset(self._overlapping(tensors))

    def require(self, tensors: Sequence[torch.Tensor]) -> None:
        """Raise if tensors overlap that did not at the build.

        Raises:
            ContractError: two of them do, and one of these is written to.
        """
        storages = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        if len(storages) == len(tensors):
            return
        for pair in self._overlapping(tensors) - self._known:
            written, other = pair if pair[0] in self._written else pair[::-1]
            raise ContractError(
                self._names[written],
                f"a tensor that overlaps {self._names[other]} in memory",
                "a tensor of its own, since the model writes to it and it was one when compiled",
                "pass a .clone(), or call torch.compiler.reset()",
            )

    def _overlapping(self, tensors: Sequence[torch.Tensor]) -> set[tuple[int, int]]:
        """The pairs, one of them written to, that overlap in memory."""
        sharing: dict[int, list[int]] = {}
        for number, tensor in enumerate(tensors):
            if tensor.numel():
                sharing.setdefault(tensor.untyped_storage().data_ptr(), []).append(number)
        return {
            (left, right)
            for numbers in sharing.values()
            for left in numbers
            for right in numbers
            if left < right
            and (left in self._written or right in self._written)
            and _spans_meet(tensors[left], tensors[right])
        }


def _spans_meet(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether the bytes from first to last of two tensors of a storage have some in common."""
    (low, high), (other_low, other_high) = _span(left), _span(right)
    return low < other_high and other_low < high


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    start = tensor.data_ptr()
    return start, start + spanned(tensor.shape, tensor.stride()) * tensor.dtype.itemsize
