"""Arrays over tensors of libtorch's, and what libtorch does to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotstart.records.shapes import strides_match
from hotstart.torchfree.arrays import Array, Handle
from hotstart.torchfree.libtorch import Libtorch


def array_of(
    torch: Libtorch, handle: int, given: Sequence[Array] = (), keeps: tuple[Any, ...] = ()
) -> Array:
    """Make an array of a tensor, whose handle is the array's then.

    Args:
        torch: the library.
        handle: of the tensor.
        given: arrays that a tensor may be a view of; it keeps the one that it is.
        keeps: what keeps further memory that it may show and does not own.
    """
    owned = Handle(torch, handle)
    address, dtype, shape, strides, storage = torch.described(handle)
    shown = (array for array in given if array.address == storage)
    return Array(address, dtype, shape, strides, (owned, *shown, *keeps))


def handle_of(torch: Libtorch, array: Array) -> int:
    """Make a tensor of an array, which has to live as long; a handle, which has to be deleted."""
    return torch.over(array.address, array.shape, array.strides, array.dtype)


def copied(torch: Libtorch, array: Array, strides: Sequence[int]) -> Array:
    """Copy an array into memory of its own, laid out as it is asked for."""
    handle = Handle(torch, handle_of(torch, array))
    return array_of(torch, torch.laid_out(handle.number, array.shape, strides, array.dtype))


def laid_out(torch: Libtorch, array: Array, strides: tuple[int, ...]) -> Array:
    """Lay an array out anew, unless that only changes strides that say nothing."""
    if array.strides == strides:
        return array
    if 0 in array.shape or strides_match(array.shape, array.strides, strides):
        return array.as_strided(array.shape, strides)
    return copied(torch, array, strides)


def write(torch: Libtorch, into: Array, of: Array) -> None:
    """Copy what an array holds into another of the same shape."""
    target, source = (Handle(torch, handle_of(torch, each)) for each in (into, of))
    torch.copy(target.number, source.number)
