"""Run every piece of an artifact on made-up weights and inputs, the same ones in every process."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from hotstart import _torch
from hotstart.generated import run_source
from hotstart.ir import Artifact, Contract, TensorSpec, WeightSpec
from hotstart.loading import instantiate
from hotstart.runtime.arguments import passed_objects
from hotstart.runtime.layout import dense_strides
from hotstart.shapes import Variant
from hotstart.trees import parts_of

Note = Callable[[str, torch.Tensor], None]
"""Told the piece's unit, or `"result"`, and one of its outputs, right after it was made."""


def rehearse(artifact: Artifact, note: Note) -> None:
    """Run all variants, and tell `note` of every tensor that a piece or a variant returns.

    Floating-point weights that no call writes to share one piece of memory with random contents, so
    that this takes little memory; numbers that may be indices are zero. What a model asserts of the
    contents of tensors need not hold for such inputs, so it is not asserted.
    """
    units = {key: instantiate(unit) for key, unit in artifact.units.items()}
    for contract, stitched in ((c.contract, s) for c in artifact.calls for s in c.stitched):
        weights = _weights(artifact)
        own = [_noted(units[key], key, note) for key in stitched.units]
        make = run_source(stitched.source, stitched.filename, {}, stitched.bytecode)["bind"]
        owners = [types.SimpleNamespace() for _ in stitched.owners]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            run = make([weights[s] for s in stitched.weights], own, stitched.constants, owners)
            with _without_assertions(artifact):
                result = run(*_arguments(contract, stitched.variant))
        for tensor in _tensors(result):
            note("result", tensor)


def _without_assertions(artifact: Artifact) -> contextlib.AbstractContextManager[None]:
    sources = [unit.source for unit in artifact.units.values()]
    sources += [stitched.source for call in artifact.calls for stitched in call.stitched]
    asserts = any("_assert_async" in source for source in sources)
    return _torch.without_assertions() if asserts else contextlib.nullcontext()


def _noted(unit: Callable[..., Any], key: str, note: Note) -> Callable[..., Any]:
    def bind(*weights: Any) -> Any:
        call = unit(*weights)

        def noted(args: list[Any]) -> Any:
            outputs = call(args)
            for output in outputs:
                note(key, output)
            return outputs

        return noted

    return bind


def _weights(artifact: Artifact) -> list[torch.Tensor]:
    specs = artifact.requirements.weights
    needed: dict[torch.dtype, int] = {}
    for spec in specs:
        needed[spec.dtype] = max(needed.get(spec.dtype, 1), _span(spec.shape, spec.stride))
    memory = {dtype: _filled((count,), dtype) for dtype, count in needed.items()}
    return [
        artifact.captured[slot] if slot in artifact.captured else _weight(spec, memory[spec.dtype])
        for slot, spec in enumerate(specs)
    ]


def _weight(spec: WeightSpec, memory: torch.Tensor) -> torch.Tensor:
    own = memory[: _span(spec.shape, spec.stride)]
    return (own.clone() if spec.mutated else own).as_strided(spec.shape, spec.stride)


def _arguments(contract: Contract, variant: Variant) -> list[Any]:
    sizes = _sizes(variant)
    tensors = [_argument(spec, sizes) for spec in contract.tensors]
    given = [tensors[slot] for slot in contract.given]
    objects = passed_objects(contract, tensors)
    return [*(sizes[dim.name] for dim in contract.axes), *tensors, *given, *objects]


def _sizes(variant: Variant) -> dict[str, int]:
    """Sizes a variant serves: no special cases, if there are others, and little work."""
    boxes = variant.box()
    sizes = {axis: min(max(box.lo, 3), box.hi) for axis, box in boxes.items()}
    if variant.covers(sizes):
        return sizes
    counted = itertools.product(*(range(box.lo, box.hi + 1) for box in boxes.values()))
    tried = (dict(zip(boxes, at, strict=True)) for at in counted)
    return next(filter(variant.covers, tried))


def _argument(spec: TensorSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
    strides = dense_strides(shape, spec.dim_order)
    return _filled((max(_span(shape, strides), 1),), spec.dtype).as_strided(shape, strides)


def _filled(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point or dtype.is_complex:
        wide = torch.complex64 if dtype.is_complex else torch.float32
        seed = int.from_bytes(hashlib.sha256(repr((shape, dtype)).encode()).digest()[:4], "little")
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(shape, dtype=wide, generator=generator) * 0.1).to(dtype)
    return torch.zeros(shape, dtype=dtype)


def _span(shape: Sequence[int], stride: Sequence[int]) -> int:
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    else:
        for part in parts_of(value, "") or ():
            yield from _tensors(part.value)
