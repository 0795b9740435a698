"""Keep the tensors of example calls for the check at save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import torch

from hotstart.records.contract import Contract
from hotstart.records.dims import as_derived, axes_of
from hotstart.records.nested import Const
from hotstart.records.trees import tensors_of
from hotstart.runtime.entry.by_parameter import bind_arguments
from hotstart.runtime.tensors import TENSOR_TYPES, is_lazy_view

KEPT_BYTES = 64 << 20
"""Bytes that are kept of an example call; its largest tensors are left out."""


class Example(msgspec.Struct, frozen=True, eq=False):
    """The tensors of a call, by slot of its contract.

    Attributes:
        sizes: the size of each axis.
        tensors: copies; None where an argument has no values or is too large to be kept.
        given: whether it was given to `save`, and is not the example that was compiled.
    """

    sizes: dict[str, int]
    tensors: tuple[torch.Tensor | None, ...]
    given: bool = False


def kept_example(contract: Contract, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Example:
    """Copy the tensors of the call that a contract was made from."""
    found = _tensors(contract, args, kwargs)
    slots = within([tensor if has_values(tensor) else None for tensor in found], KEPT_BYTES)
    copies = (t.detach().clone() if slot in slots else None for slot, t in enumerate(found))
    return Example(_sizes(contract, found), tuple(copies))


def given_example(contract: Contract, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Example:
    """Keep the tensors of a call that a contract takes."""
    found = _tensors(contract, args, kwargs)
    tensors = tuple(tensor.detach() for tensor in found)
    return Example(_sizes(contract, found), tensors, given=True)


def has_values(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is a plain one in this process' memory, and no stand-in."""
    return type(tensor) in TENSOR_TYPES and tensor.device.type == "cpu" and not is_lazy_view(tensor)


def within(tensors: Sequence[torch.Tensor | None], limit: int) -> set[int]:
    """Choose tensors that take up to `limit` bytes together, by number, smallest first."""
    sized = sorted((t.nbytes, number) for number, t in enumerate(tensors) if t is not None)
    taken, chosen = 0, set()
    for size, number in sized:
        taken += size
        if taken > limit:
            break
        chosen.add(number)
    return chosen


def _tensors(
    contract: Contract, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[torch.Tensor]:
    """List the tensors of a call in the order of a contract's slots."""
    values, _, _ = bind_arguments(contract.parameters, args, kwargs)
    return [
        tensor
        for parameter, value in zip(contract.parameters, values, strict=True)
        if not isinstance(parameter.tree, Const)  # a default may be a tensor
        for _, tensor in tensors_of(value)
    ]


def _sizes(contract: Contract, tensors: Sequence[torch.Tensor]) -> dict[str, int]:
    """Compute the size of each axis of a contract in a call with these tensors."""
    sizes: dict[str, int] = {}
    for spec, tensor in zip(contract.tensors, tensors, strict=True):
        for size, found in zip(spec.shape, tensor.shape, strict=True):
            if len(axes_of(size)) == 1:
                (axis,) = axes_of(size)
                sizes[axis] = as_derived(size).solved(int(found))
    return sizes
