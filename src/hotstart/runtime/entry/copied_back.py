"""Write the code that copies arguments into the compiled layout, and mutations of a copy back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from hotstart.records.contract import TensorSpec
from hotstart.records.dims import as_derived
from hotstart.records.shapes import IMAGES
from hotstart.runtime.code.identifiers import Scope, written_tuple

Relayout = Callable[[torch.Tensor, Sequence[int], str], torch.Tensor]
"""Gives a tensor in the compiled layout; takes its order of dimensions and its path."""


def copied(
    spec: TensorSpec, name: str, scope: Scope, sizes: Mapping[str, str], relayout: Relayout
) -> Iterator[str]:
    """Copy a tensor whose layout is not the compiled one; cheap where it is.

    Args:
        spec: the contract's tensor.
        name: its variable.
        scope: names of what the entry refers to.
        sizes: the variable of each axis.
        relayout: copies it.
    """
    if not spec.shape or spec.layout != "copied":
        return
    if len(spec.shape) not in IMAGES and spec.dim_order == tuple(range(len(spec.shape))):
        test = f"not {name}.is_contiguous()"
    else:
        test = f"{name}.stride() != {_strides(spec, sizes)}"
    copy = scope.refer("relayout", relayout)
    yield f"if {test}:"
    yield f"    {name} = {copy}({name}, {spec.dim_order!r}, {spec.path!r})"


def _strides(spec: TensorSpec, sizes: Mapping[str, str]) -> str:
    """The strides of a tensor without gaps in the compiled order of dimensions."""
    strides = [""] * len(spec.shape)
    known, factors = 1, ""
    for dim in reversed(spec.dim_order):
        strides[dim] = f"{known}{factors}" if known != 1 or not factors else factors[3:]
        size = spec.shape[dim]
        if isinstance(size, int):
            known *= size
        else:
            written = as_derived(size).written(sizes.__getitem__)
            factors += f" * {written}" if isinstance(size, str) else f" * ({written})"
    return written_tuple(strides)


def copied_back(written: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Copy mutations of copies back into the arguments that the caller passed.

    Args:
        written: for each argument that is written to, the variable of the caller's tensor, and that
            of its copy.
    """
    for passed, given in written:
        # A view of the same memory holds what was written.
        yield f"if {given}.data_ptr() != {passed}.data_ptr():"
        yield f"    {passed}.copy_({given})"
