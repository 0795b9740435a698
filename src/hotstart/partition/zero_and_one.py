"""Find the sizes 0 and 1 at which operators do something else than was traced.

Tracing does not assume that sizes differ from 0 and 1, but operators branch on them: `squeeze`
drops a dimension of size 1, a reduction refuses one of size 0. A trace records a condition where
the model's own code asks for a size, but none where an operator does. So each different piece is
run once on fake tensors of those sizes, and compared with the trace.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.graphs.source_lines import line_of
from hotstart._torch.graphs.symbols import Condition, differ, fake_mode, holds_at, make_symbols
from hotstart._torch.running.modes import left_transforms
from hotstart.capture.captured import example_of, tensors_in
from hotstart.partition.data_sizes import NumberSizes
from hotstart.partition.graph import Graph
from hotstart.partition.pieces import Piece, Plan
from hotstart.records.shapes import Interval

SPECIAL = (0, 1)

ORDINARY = 2
"""The lowest size that is not special."""


class _Differs(Exception):
    """A size at which a graph does not do what was traced."""


def special_conditions(
    plan: Plan, declared: Mapping[str, Interval], hints: Mapping[str, int]
) -> list[Condition]:
    """Make conditions that exclude the special sizes, or combinations, a graph does not serve.

    Args:
        plan: the graph, cut.
        declared: the sizes that are declared for each axis.
        hints: the sizes it was traced with.
    """
    found: list[Condition] = []
    finder = NumberSizes(plan.graph.captured)
    for piece in plan.different:
        for special in specials(plan.graph, piece, declared):
            at = {**hints, **special}
            known = [*plan.graph.captured.conditions, *found]
            if not all(holds_at(c.expr, at) for c in known):
                continue
            complete = finder.at(at)
            if complete is None and not declared.keys() >= set(piece.axes):
                found.append(_unknown(special))
                continue
            try:
                _run(plan.graph, piece, complete or at)
            except _Differs as difference:
                found.append(_excluding(special, str(difference)))
    return found


def _unknown(special: Mapping[str, int]) -> Condition:
    return _excluding(special, "no numbers that depend on data are found that the model allows")


def _excluding(special: Mapping[str, int], why: str) -> Condition:
    named = ", ".join(f"{axis} = {size}" for axis, size in special.items())
    return Condition(differ(special), f"{why} at {named}")


def specials(graph: Graph, piece: Piece, declared: Mapping[str, Interval]) -> list[dict[str, int]]:
    """List the special sizes of one axis, then of two, and so on.

    Axes are combined where a node meets all of them: no other node can tell the combination from
    its parts. Of all axes of a piece, six would be combined in 728 ways.
    """
    fixed = graph.captured.fixed
    axes = [axis for axis in piece.axes if axis in declared and axis not in fixed]
    met = [_axes_met(graph, node) for node in piece.nodes]
    groups = {(axis,) for axis in axes} | {tuple(a for a in axes if a in each) for each in met}
    values = _special_values(graph, piece)
    choices = {
        axis: (None, *(n for n in sorted({*SPECIAL, *values[axis]}) if n in declared[axis]))
        for axis in axes
    }
    found = {
        tuple((axis, size) for axis, size in zip(group, sizes, strict=True) if size is not None)
        for group in groups
        for sizes in itertools.product(*(choices[axis] for axis in group))
    }
    return sorted(
        map(dict, filter(None, found)),
        key=lambda special: (len(special), [special.get(axis, -1) for axis in axes]),
    )


def _special_values(graph: Graph, piece: Piece) -> Mapping[str, set[int]]:
    """Find the sizes of axes at which a tensor has a size of 0 or 1 that follows from one alone."""
    found: dict[str, set[int]] = defaultdict(set)
    tensors = (t for node in (*piece.inputs, *piece.nodes) for t in tensors_in(example_of(node)))
    sizes = {graph.expression(size) for tensor in tensors for size in tensor.shape}
    for size in sizes:
        symbols = list(getattr(size, "free_symbols", ()))
        if len(symbols) != 1 or size.is_Symbol:
            continue
        terms = size.as_coefficients_dict()
        if terms.keys() <= {symbols[0], 1}:
            solved = ((special - terms[1]) / terms[symbols[0]] for special in SPECIAL)
            found[str(symbols[0])] |= {int(n) for n in solved if n.is_Integer and n >= 0}
    return found


def _axes_met(graph: Graph, node: fx.Node) -> frozenset[str]:
    """Find the axes that the arguments of a node and its tensors depend on."""
    numbers: list[Any] = []
    map_aggregate((graph.args(node), graph.kwargs(node)), numbers.append)
    for read in (node, *graph.reads(node)):
        for tensor in tensors_in(example_of(read)):
            numbers += tensor.shape
            if tensor.layout is torch.strided:
                numbers += (*tensor.stride(), tensor.storage_offset())
    exprs = (graph.expression(number) for number in numbers)
    return frozenset(str(s) for expr in exprs for s in getattr(expr, "free_symbols", ()))


def _run(graph: Graph, piece: Piece, at: dict[str, int]) -> None:
    sizes = graph.substitution(at)

    def number(value: Any) -> Any:
        return graph.number_at(value, sizes)

    values: dict[fx.Node, Any] = {}
    env = make_symbols({}).env  # loops make numbers up in it
    with fake_mode(env), torch.no_grad(), left_transforms():
        for node in piece.inputs:
            values[node] = _expected(example_of(node), number)
        for node in piece.nodes:
            args, kwargs = map_aggregate(
                (graph.args(node), graph.kwargs(node)),
                lambda item: values[item] if isinstance(item, fx.Node) else number(item),
            )
            try:
                values[node] = graph.call(node, args, kwargs)
            except Exception as error:
                raise _Differs(f"{_line(node)}: {node.name} raises {error}") from error
            traced = [tuple(map(number, t.shape)) for t in tensors_in(example_of(node))]
            found = [tuple(t.shape) for t in tensors_in(values[node])]
            if traced != found:
                raise _Differs(f"{_line(node)}: {node.name} gives {found}, traced as {traced},")


def _expected(example: torch.Tensor, number: Any) -> torch.Tensor:
    return torch.empty_strided(
        [number(size) for size in example.shape],
        [number(stride) for stride in example.stride()],
        dtype=example.dtype,
        device=example.device,
    )


def _line(node: fx.Node) -> str:
    return line_of(node) or node.name
