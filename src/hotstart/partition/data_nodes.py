"""Find the nodes that run in a call only, since they make or need numbers that depend on data.

Pieces are compiled for all values of a number, 0 and 1 included. An operator that raises at one of
these, as a maximum of no elements does, runs as it is and raises there, too. One that gives another
shape there than was traced is refused: what follows was traced for the other shape.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.dynamo.data_numbers import asserts_number, known_contents
from hotstart._torch.graphs.nodes import attribute_of
from hotstart._torch.graphs.source_lines import line_of
from hotstart._torch.graphs.symbols import failures_unlogged, fake_mode, is_fake, make_symbols
from hotstart._torch.processes.collectives import communicates
from hotstart.capture.captured import example_of, tensors_in
from hotstart.errors import CaptureError
from hotstart.partition.data_sizes import NumberSizes
from hotstart.partition.graph import Graph
from hotstart.partition.operator_names import operator_name
from hotstart.partition.tokens import came_with_torch

_SPECIAL = (0, 1)

_MOST = 1 << 22
"""Bound on the elements of tensors that a node is run with."""

_TOGETHER = 3
"""Data-dependent numbers of a node up to which all combinations of special values are tried."""


def nodes_alone(graph: Graph, hints: Mapping[str, int]) -> frozenset[fx.Node]:
    """Find the nodes that must not be compiled.

    Args:
        graph: the graph.
        hints: the sizes of axes that it was traced with.

    Raises:
        CaptureError: an operator gives another shape where a number is 0 or 1.
    """
    if not graph.captured.numbers and not graph.captured.facts:
        return frozenset(filter(asserts_number, graph.nodes))
    loose = {number.symbol for number in graph.captured.numbers if not number.is_size}
    sizes = {number.symbol for number in graph.captured.numbers if number.is_size}
    finder = NumberSizes(graph.captured)
    alone: set[fx.Node] = set()
    for node in graph.nodes:
        values = graph.met(node)
        met = graph.symbols_in(values)
        if _asks_data(graph, node) or loose & met or graph.is_inexact(values):
            alone.add(node)
        elif sizes & met:
            names = sorted(str(symbol) for symbol in sizes & met)
            if not all(
                _runs(graph, node, at) for at in _special_sizes(graph, finder, names, hints)
            ):
                alone.add(node)
    return frozenset(alone)


def _asks_data(graph: Graph, node: fx.Node) -> bool:
    """Tell whether a node makes or checks a data-dependent number, or computes one that flows."""
    return (
        node in graph.numbers
        or node in graph.flowing
        or any(fact.node is node for fact in graph.captured.facts)
        or asserts_number(node)
    )


def _special_sizes(
    graph: Graph, finder: NumberSizes, names: Sequence[str], hints: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """Complete the special values of some numbers by ordinary ones of all others."""
    known = {**hints, **graph.captured.fixed}
    for special in _specials(names):
        found = finder.at({**known, **special}) if _in_bounds(graph, special) else None
        if found is not None:
            yield found


def _specials(names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Combine special values of numbers; of many, each by itself, and all at once."""
    if len(names) <= _TOGETHER:
        for values in itertools.product((None, *_SPECIAL), repeat=len(names)):
            yield {n: v for n, v in zip(names, values, strict=True) if v is not None}
        return
    yield from ({name: value} for name in names for value in _SPECIAL)
    yield from (dict.fromkeys(names, value) for value in _SPECIAL)


def _in_bounds(graph: Graph, values: Mapping[str, int]) -> bool:
    bounds = {n.name: (n.low or 0, n.high) for n in graph.captured.numbers}
    return all(bounds[name][0] <= value <= bounds[name][1] for name, value in values.items())


def _runs(graph: Graph, node: fx.Node, at: Mapping[str, int]) -> bool:
    """Tell whether a node runs at some sizes, and gives sizes that are known before.

    Raises:
        CaptureError: it gives another shape than was traced.
    """
    sizes = graph.substitution(at)

    def number(value: Any) -> Any:
        return graph.number_at(value, sizes)

    def leaf(item: Any) -> Any:
        return made_up_input(graph, item, number) if isinstance(item, fx.Node) else number(item)

    found: Any = None
    fake = fake_mode(make_symbols({}).env)
    for mode in (fake, contextlib.nullcontext()) if may_run(graph, node, at, sizes) else (fake,):
        with mode, failures_unlogged(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                args, kwargs = map_aggregate((graph.args(node), graph.kwargs(node)), leaf)
                found = graph.call(node, args, kwargs)
            except Exception:  # noqa: BLE001  whatever operators raise
                return False
    made = [tuple(t.shape) for t in tensors_in(found)]
    if any(type(size) is not int for shape in made for size in shape):
        return False  # it makes a number, which torch takes for one that was made before
    traced = [tuple(map(number, t.shape)) for t in tensors_in(example_of(node))]
    if made != traced:
        raise _other_shape(node, made, traced)
    return True


def may_run(graph: Graph, node: fx.Node, at: Mapping[str, int], sizes: Mapping[Any, Any]) -> bool:
    """Tell whether to run a node for real as well: fake kernels do not raise for all empty tensors.

    An operator that did not come with torch may have effects elsewhere.
    """
    name = operator_name(node.target)
    empty = any(at[number.name] == 0 for number in graph.captured.numbers)
    if not empty or communicates(node) or (name and not came_with_torch(name)):
        return False
    tensors = (t for one in (node, *graph.reads(node)) for t in tensors_in(example_of(one)))
    counts = (math.prod(graph.number_at(n, sizes) for n in tensor.shape) for tensor in tensors)
    return bool(sum(counts) <= _MOST)


def made_up_input(graph: Graph, node: fx.Node, number: Any) -> Any:
    """Make up a node's result, with zeros for contents; `number` evaluates sizes."""
    if node.op == "get_attr":
        return attribute_of(graph.captured.module, str(node.target))
    return map_aggregate(
        example_of(node), lambda v: _expected(v, number) if isinstance(v, torch.Tensor) else v
    )


def _expected(example: torch.Tensor, number: Any) -> torch.Tensor:
    known = known_contents(example)
    if known is not None:
        return torch.tensor(known, dtype=example.dtype, device=example.device)
    made = torch.empty_strided(
        [number(size) for size in example.shape],
        [number(stride) for stride in example.stride()],
        dtype=example.dtype,
        device=example.device,
    )
    return made if is_fake(made) else made.zero_()


def _other_shape(node: fx.Node, found: object, traced: object) -> CaptureError:
    return CaptureError(
        f"{line_of(node) or node.name}: an operator gives another shape where a number that "
        "depends on the contents of a tensor is 0 or 1.\n"
        f"  expected: {traced}\n"
        f"  found:    {found}\n"
        "  do:       name the dimensions (squeeze(1) in place of squeeze()), or exclude that "
        "number with torch._check"
    )
