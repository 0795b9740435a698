"""Find values near which the operators of a piece may change what they do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.graphs.writes import was_mutated
from hotstart.capture.captured import example_of, tensors_in
from hotstart.compilers.job import Job
from hotstart.partition.operator_names import names_of

_ORDINARY = (0.0, 1e-3, 1.0, 1e3)
"""Numbers around which every piece is tried: bounds that operators have in their code."""

_LARGEST = 1e9
"""Larger numbers, such as those that stand for infinity in a mask, make results infinite."""

_MOST = 16
"""Bound on the numbers around which one piece is tried."""

INTEGERS = frozenset({torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8})
"""Dtypes that operators compute with."""

_ANY_INTEGER = frozenset(
    {
        *("add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "fmod", "neg", "abs"),
        *("add_", "sub_", "mul_", "div_", "sign", "square", "eq", "ne", "lt", "le", "gt", "ge"),
        *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "logical_and", "logical_or"),
        *("logical_not", "logical_xor", "where", "masked_fill", "clamp", "clamp_min", "clamp_max"),
        *("clip", "minimum", "maximum", "sum", "amin", "amax", "argmin", "argmax", "any", "all"),
        *("cumsum", "mean", "isin", "sort", "argsort", "to", "float", "double", "half", "bfloat16"),
        *("int", "long", "short", "bool", "type", "type_as", "byte", "char", "view", "reshape"),
        *("flatten", "unsqueeze", "squeeze", "expand", "expand_as", "permute", "transpose", "t"),
        *("contiguous", "clone", "cat", "stack", "flip", "roll", "detach", "movedim", "tril"),
        *("triu", "copy_", "ones_like", "zeros_like", "size", "dim", "unbind", "chunk", "split"),
    }
)
"""Operators that take any integer. Others may index with it, allocate by it, or not check it."""


def varies(job: Job, node: fx.Node) -> bool:
    """Tell whether an input has other values in other runs; a weight only if it is written to."""
    return not job.graph.is_weight(node) or was_mutated(example_of(node))


def has_floats(job: Job) -> bool:
    """Tell whether an input that varies is of floating-point numbers."""
    return any(
        varies(job, node) and example_of(node).is_floating_point() for node in job.piece.inputs
    )


def numbers_of(job: Job) -> tuple[float, ...]:
    """List the numbers around which a piece is tried: its constants, and some more.

    Returns:
        Magnitudes without the largest, smallest first.
    """
    found: set[float] = set()

    def note(item: Any) -> Any:
        if isinstance(item, int | float) and abs(item) <= _LARGEST:
            found.add(abs(float(item)))
        return item

    for node in job.piece.nodes:
        map_aggregate(job.graph.args(node), note)
        map_aggregate(job.graph.kwargs(node), note)
    return tuple(sorted({*_ORDINARY, *sorted(found)[-_MOST:]}))


def take_any_integer(job: Job) -> bool:
    """Tell whether operators take every integer in the piece's inputs that are integers.

    A wrong one may be an index that an operator does not check.
    """
    reached = {node for node in job.piece.inputs if varies(job, node) and _has_integers(node)}
    for node in job.piece.nodes:
        if reached.isdisjoint(job.graph.arguments(node).reads):
            continue
        if not _takes_any(node):
            return False
        if _has_integers(node):
            reached.add(node)
    return bool(reached)


def _takes_any(node: fx.Node) -> bool:
    return not _ANY_INTEGER.isdisjoint(names_of(node))


def _has_integers(node: fx.Node) -> bool:
    return any(tensor.dtype in INTEGERS for tensor in tensors_in(example_of(node)))


def around(numbers: tuple[float, ...], dtype: torch.dtype) -> torch.Tensor:
    """List values around numbers that a dtype has: themselves, their neighbours, half, twice."""
    info = torch.finfo(dtype)
    found = [value for number in numbers for value in _near(number, info.eps)]
    values = [sign * value for value in found if value <= info.max for sign in (1.0, -1.0)]
    return torch.tensor(values, dtype=torch.float64).to(dtype)


def integers_around(dtype: torch.dtype) -> torch.Tensor:
    """List integers that a dtype has, small and large.

    Its lowest is none of them: dividing that by -1 ends a process.
    """
    info = torch.iinfo(dtype)
    high, low = info.max, -info.max if info.min else 0
    draw = random.Random(0)
    drawn = [draw.randint(low, high) for _ in range(24)]
    values = [high, high - 1, low, low + 1, *range(-9, 10), *drawn]
    return torch.tensor([v for v in values if low <= v <= high]).to(dtype)


def _near(number: float, eps: float) -> Iterator[float]:
    yield number
    yield number * (1.0 + eps)
    yield number * (1.0 - eps)
    yield number * 0.5
    yield number * 2.0
