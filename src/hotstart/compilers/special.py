"""Check that a piece means the same at sizes 0 and 1 as it does at the size it was traced with.

Tracing does not assume that sizes differ from 0 and 1, but operators decide by them: `squeeze`
drops a dimension of size 1, a reduction refuses one of size 0. Where the model's own code asks, a
condition is recorded; where an operator asks inside, nothing is. So each different piece is run
once on fake tensors of those sizes, and what comes out is compared with what was traced.
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart import _torch
from hotstart.compilers.base import Job
from hotstart.errors import RangeError
from hotstart.partition.plan import example_of, tensors_in

SPECIAL = (0, 1)


def require_special_sizes(job: Job) -> None:
    """Run a job's piece on fake tensors of every special size its axes may have.

    Raises:
        RangeError: an operator does something else at such a size than what was traced.
    """
    choices = [
        [bounds.hint, *(n for n in SPECIAL if bounds.low <= n <= bounds.high)]
        for bounds in job.bounds.values()
    ]
    for sizes in itertools.product(*choices):
        at = dict(zip(job.bounds, sizes, strict=True))
        special = {axis: size for axis, size in at.items() if size in SPECIAL}
        if special:
            _run(job, at, special)


def _run(job: Job, at: dict[str, int], special: dict[str, int]) -> None:
    sizes = _torch.substitution(at)
    graph = job.graph

    def number(value: Any) -> Any:
        import sympy

        known = graph.expression(value)
        return (
            _torch.plain_number(known.xreplace(sizes)) if isinstance(known, sympy.Basic) else known
        )

    values: dict[fx.Node, Any] = {}
    env = _torch.make_symbols({}).env  # loops make numbers up in it
    with _torch.fake_mode(env), torch.no_grad():
        for node in job.piece.inputs:
            values[node] = _expected(example_of(node), number)
        for node in job.piece.nodes:
            args, kwargs = map_aggregate(
                (graph.args(node), graph.kwargs(node)),
                lambda item: values[item] if isinstance(item, fx.Node) else number(item),
            )
            try:
                values[node] = _call(job, node, args, kwargs)
            except Exception as error:
                raise _error(job, node, special, f"raises {error}") from error
            traced = [tuple(map(number, t.shape)) for t in tensors_in(example_of(node))]
            found = [tuple(t.shape) for t in tensors_in(values[node])]
            if traced != found:
                raise _error(job, node, special, f"gives shape {found}, traced as {traced}")


def _expected(example: torch.Tensor, number: Any) -> torch.Tensor:
    return torch.empty_strided(
        [number(size) for size in example.shape],
        [number(stride) for stride in example.stride()],
        dtype=example.dtype,
        device=example.device,
    )


def _call(job: Job, node: fx.Node, args: Any, kwargs: Any) -> Any:
    if node.op == "get_attr":
        return _torch.attribute_of(job.graph.captured.module, str(node.target))
    if node.op == "call_method":
        return operator.methodcaller(str(node.target), *args[1:], **kwargs)(args[0])
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _error(job: Job, node: fx.Node, special: dict[str, int], what: str) -> RangeError:
    named = ", ".join(f"{axis} = {size}" for axis, size in special.items())
    return RangeError(
        axis=", ".join(special),
        declared=" and ".join(f"{job.bounds[a].low}..{job.bounds[a].high}" for a in special),
        condition=" or ".join(f"{axis} != {size}" for axis, size in special.items()),
        source=f"{_line(node)} (at {named}, {node.name} {what})",
        advice="leave these sizes out, or give them variants of their own with "
        f"sizes={sorted(set(special.values()))}",
    )


def _line(node: fx.Node) -> str:
    lines = [line.strip() for line in (node.stack_trace or "").strip().splitlines()]
    return " ".join(lines[-2:]) if lines else node.name
