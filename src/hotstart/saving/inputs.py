"""Choose the values that a program is tried on: real ones where there are any, else made up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hotstart.dtypes import dtype_of
from hotstart.records.artifact import Requirements, StitchedCall, WeightSpec
from hotstart.records.contract import Contract
from hotstart.records.shapes import Variant, dense_strides, spanned
from hotstart.runtime.made_up import KINDS, Kind, made_up
from hotstart.saving.examples import KEPT_BYTES, Example, has_values, within


@dataclass(frozen=True)
class Real:
    """Values of example calls and of the model.

    Attributes:
        examples: example calls, by the call's name.
        weights: tensors of the model, by slot.
    """

    examples: Mapping[str, Sequence[Example]]
    weights: Mapping[int, torch.Tensor]


@dataclass(frozen=True)
class Inputs:
    """One choice of values for the arguments of a variant.

    Attributes:
        about: a description, for errors.
        sizes: the size of each axis.
        kind: the kind of the made-up values.
        example: gives the other values; None if all are made up.
        floats: whether floating-point numbers are taken from the example, too.
    """

    about: str
    sizes: Mapping[str, int]
    kind: Kind = KINDS[0]
    example: Example | None = None
    floats: bool = True


def choices(call: StitchedCall, variant: Variant, real: Real) -> list[Inputs]:
    """List the inputs to try for a variant, in order.

    If a user gave inputs for its sizes, only those. Else the example's, first at sizes that take
    little time, then at its own; first with made-up floating-point numbers, then with its own,
    since examples are often zeros, which hide differences. Then made-up ones of all kinds.
    """
    examples = real.examples.get(call.name, ())
    given = [example for example in examples if example.given]
    for example in given:
        if variant.covers(example.sizes):
            return [Inputs("check_inputs", example.sizes, example=example)]
    small = _small_sizes(variant)
    at = ", ".join(f"{axis}={size}" for axis, size in small.items())
    found: list[Inputs] = []
    for example in given or examples:
        about = "check_inputs" if example.given else "the example"
        there = about if example.sizes == small else f"{about} at {at}"
        mixed = f"{there}, floating-point numbers made up"
        found.append(Inputs(mixed, small, example=example, floats=False))
        found.append(Inputs(there, small, example=example))
        if example.sizes != small and variant.covers(example.sizes):
            found.append(Inputs(about, example.sizes, example=example))
    return found + [Inputs(f"made up, {kind}", small, kind) for kind in KINDS]


def tensors(contract: Contract, inputs: Inputs) -> list[torch.Tensor]:
    """Make the arguments of a call, by slot, each in its own memory and in the compiled layout."""
    shapes = [spec.shape_at(inputs.sizes) for spec in contract.tensors]
    below = min((size for shape in shapes for size in shape if size > 1), default=2)
    made = []
    for slot, (spec, shape) in enumerate(zip(contract.tensors, shapes, strict=True)):
        strides = dense_strides(shape, spec.dim_order)
        dtype = dtype_of(spec.dtype)
        value = made_up(shape, strides, dtype, inputs.kind, below=below, seed=slot)
        example = None if inputs.example is None else inputs.example.tensors[slot]
        if example is not None and (inputs.floats or not _inexact(dtype)):
            value.copy_(_resized(example, shape))
        made.append(value)
    return made


def real_weights(
    requirements: Requirements, values: Sequence[Any], *, floats: bool
) -> dict[int, torch.Tensor]:
    """Take the values that weights have now, by slot, without those on other devices.

    Without `floats`, only small tensors of integers and booleans: nearly all requirements on values
    are that they are valid indices, and floating-point tensors take the memory.

    Args:
        requirements: the table of weights.
        values: what is there of each now.
        floats: whether floating-point tensors count.
    """
    found = [
        _fitting(spec, tensor) for spec, tensor in zip(requirements.weights, values, strict=True)
    ]
    if not floats:
        exact = [None if t is None or _inexact(t.dtype) else t for t in found]
        small = within(exact, KEPT_BYTES)
        found = [t if slot in small else None for slot, t in enumerate(found)]
    return {slot: tensor for slot, tensor in enumerate(found) if tensor is not None}


def weights(
    requirements: Requirements,
    captured: Mapping[int, torch.Tensor],
    real: Mapping[int, torch.Tensor],
) -> list[torch.Tensor]:
    """Make all weights, by slot.

    Made-up floating-point weights share one piece of memory, which saves memory, unless a call
    writes to them; made-up integers are zero.
    """
    specs = requirements.weights
    needed: dict[str, int] = {}
    for slot, spec in enumerate(specs):
        if slot not in real:
            span = spanned(spec.shape, spec.stride)
            needed[spec.dtype] = max(needed.get(spec.dtype, 1), span)
    memory = {dtype: made_up((count,), (1,), dtype_of(dtype)) for dtype, count in needed.items()}
    return [
        captured[slot]
        if slot in captured
        else _written_apart(spec, real[slot])
        if slot in real
        else _weight(spec, memory[spec.dtype])
        for slot, spec in enumerate(specs)
    ]


def _weight(spec: WeightSpec, memory: torch.Tensor) -> torch.Tensor:
    own = memory[: spanned(spec.shape, spec.stride)]
    return (own.clone() if spec.mutated else own).as_strided(spec.shape, spec.stride)


def _written_apart(spec: WeightSpec, tensor: torch.Tensor) -> torch.Tensor:
    """Return a real weight, or a copy if calls write to it."""
    if not spec.mutated:
        return tensor
    return made_up(spec.shape, spec.stride, dtype_of(spec.dtype)).copy_(tensor)


def _fitting(spec: WeightSpec, tensor: Any) -> torch.Tensor | None:
    if spec.kind == "captured" or not isinstance(tensor, torch.Tensor) or not has_values(tensor):
        return None
    has = (tensor.dtype, tuple(tensor.shape), tensor.stride())
    return tensor.detach() if has == (dtype_of(spec.dtype), spec.shape, spec.stride) else None


def _resized(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Repeat or leave out values so that a tensor gets a shape; zeros if it has no values."""
    if tensor.numel() == 0:
        return torch.zeros(shape, dtype=tensor.dtype)
    times = [-(-size // have) for size, have in zip(shape, tensor.shape, strict=True)]
    return tensor.repeat(times)[tuple(map(slice, shape))]


def _small_sizes(variant: Variant) -> dict[str, int]:
    """Choose sizes that a variant serves: little work, and not 0 or 1 if there are others."""
    intervals = variant.intervals()
    sizes = {axis: min(max(i.lo, 3), i.hi) for axis, i in intervals.items()}
    if variant.covers(sizes):
        return sizes
    counted = itertools.product(*(range(i.lo, i.hi + 1) for i in intervals.values()))
    tried = (dict(zip(intervals, at, strict=True)) for at in counted)
    return next(filter(variant.covers, tried))


def _inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex
