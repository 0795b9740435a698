"""Choose the sizes at which a unit is compared with its operators."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hotstart._torch.graphs.symbols import axis_symbol, holds_at, substitution
from hotstart.capture.captured import example_of, tensors_in
from hotstart.compilers.job import Job

Sizes = Mapping[str, int]

_FAR = 64
"""Elements before a tensor, in memory, that are tried if there may be any number."""


def at(sizes: Sizes) -> str:
    """Sizes as a phrase, such as ` at batch=2, seq=7`; empty without axes."""
    named = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    return f" at {named}" if named else ""


def sizes_to_try(job: Job, most: int) -> list[dict[str, int]]:
    """Choose sizes of a job's axes, least work first.

    These are both ends, 0, 1, an odd one, one that leaves half a vector over, the tuned one.

    Args:
        job: the job.
        most: how many elements the tensors of all runs may have together. A high end that is too
            much work is replaced by a smaller size.
    """
    shapes = _shapes(job)

    def work(sizes: Sizes) -> int:
        known = substitution(sizes)
        return sum(
            count
            * math.prod(
                size if isinstance(size, int) else int(size.xreplace(known)) for size in shape
            )
            for shape, count in shapes.items()
        )

    chosen: list[dict[str, int]] = []
    left = most
    for sizes in sorted(_candidates(job, _high(job, most // 4, work)), key=work):
        if sizes not in chosen and (work(sizes) <= left or not chosen):
            chosen.append(sizes)
            left -= work(sizes)
    return chosen


def _candidates(job: Job, high: dict[str, int]) -> Iterator[dict[str, int]]:
    bounds = job.bounds
    tuned = {axis: bound.hint for axis, bound in bounds.items()}
    odd = {a: b.hint if b.high < 3 else max(3, b.low | 1) for a, b in bounds.items()}
    half = {a: max(24, b.low + (8 - b.low) % 16) for a, b in bounds.items()}
    wanted = [
        tuned,
        {axis: bound.low for axis, bound in bounds.items()},
        *({a: min(size, bounds[a].high) for a, size in sizes.items()} for sizes in (odd, half)),
        *({**tuned, axis: size} for axis in bounds for size in (0, 1)),
        high,
    ]
    for sizes in wanted:
        inside = all(bounds[a].low <= size <= bounds[a].high for a, size in sizes.items())
        if inside and all(holds_at(condition, sizes) for condition in job.where):
            yield sizes


def _high(job: Job, most: int, work: Callable[[Sizes], int]) -> dict[str, int]:
    """The high end of every axis, or as much of it as is not too much work."""
    sizes = {axis: bound.high for axis, bound in job.bounds.items()}
    for axis in _offsets(job):
        bound = job.bounds[axis]
        sizes[axis] = min(bound.high, max(bound.hint, bound.low + _FAR))
    while work(sizes) > most and any(s > job.bounds[a].low for a, s in sizes.items()):
        sizes = {a: max(job.bounds[a].low, size // 2) for a, size in sizes.items()}
    return sizes


def _offsets(job: Job) -> set[str]:
    """Find the numbers that say where tensors begin in memory, which may have no upper bound."""
    axes = {axis_symbol(axis): axis for axis in job.bounds}
    found: set[str] = set()
    for node in job.piece.inputs:
        for tensor in tensors_in(example_of(node)):
            offset = job.graph.expression(tensor.storage_offset())
            found |= {axes[s] for s in getattr(offset, "free_symbols", ()) if s in axes}
    return found


def _shapes(job: Job) -> Counter[tuple[Any, ...]]:
    """Count the shapes of all tensors, without nested ones, whose sizes no axis tells."""
    known = set(map(axis_symbol, job.bounds))
    nodes = (*job.piece.inputs, *job.piece.nodes)
    tensors = (tensor for node in nodes for tensor in tensors_in(example_of(node)))
    shapes = (tuple(map(job.graph.expression, t.shape)) for t in tensors)
    return Counter(
        shape
        for shape in shapes
        if all(isinstance(size, int) or size.free_symbols <= known for size in shape)
    )
