"""Run nodes of a graph on made-up tensors, to see what they do besides computing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.dynamo.called_operators import draws_numbers, watching_operators
from hotstart._torch.graphs.symbols import fake_mode, make_symbols
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import learnt_statistics
from hotstart.capture.captured import example_of, tensors_in
from hotstart.partition.data_nodes import made_up_input, may_run
from hotstart.partition.graph import Graph


class Acts(Exception):
    """A node may do something; the message says what."""


def run_watched(
    graph: Graph,
    node: fx.Node,
    at: Mapping[str, int],
    outside: frozenset[int],
    *,
    also_empty: bool = False,
) -> None:
    """Run a node at some sizes, watching what it does.

    Args:
        graph: the graph it is of.
        node: the node.
        at: the size of each axis, and each number.
        outside: the storages that it must not write to.
        also_empty: whether it must not do so either where there is nothing to write at these sizes.

    Raises:
        Acts: it raises, draws numbers, writes there, or reads a number that is not known.
    """
    if any(value is not None for value in learnt_statistics(node)):
        raise Acts("it writes running statistics")
    sizes = graph.substitution(at)
    real = may_run(graph, node, at, sizes)
    if node not in graph.numbers:
        with fake_mode(make_symbols({}).env):
            _call(graph, node, sizes, outside, also_empty)
    elif not real:
        raise Acts("it reads a number")
    if real:
        with torch.random.fork_rng(devices=[]):
            _call(graph, node, sizes, outside, also_empty)


def _call(
    graph: Graph,
    node: fx.Node,
    sizes: Mapping[Any, Any],
    outside: frozenset[int],
    also_empty: bool,
) -> None:
    kept: set[int] = set()

    def number(value: Any) -> Any:
        return graph.number_at(value, sizes)

    def leaf(item: Any) -> Any:
        if not isinstance(item, fx.Node):
            return number(item)
        made = made_up_input(graph, item, number)
        before = tensors_in(example_of(item))
        for tensor, example in zip(tensors_in(made), before, strict=False):
            if storage_of(example) in outside:
                kept.add(storage_of(tensor))
        return made

    with torch.no_grad():
        try:
            args, kwargs = map_aggregate((graph.args(node), graph.kwargs(node)), leaf)
            with watching_operators() as called:
                graph.call(node, args, kwargs)
        except Exception as error:
            raise Acts("it raises an error") from error
    for operator, given in called:
        if draws_numbers(operator, given):
            raise Acts("it draws random numbers")
        for written in _written(operator, given):
            nothing = not also_empty and _is_empty(operator, given, written)
            if storage_of(written) in kept and not nothing:
                raise Acts("it writes to a tensor that is not empty")


def _written(operator: Any, given: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    for argument in operator._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(given.get(argument.name))


_BY_INDEX = {
    "aten::index_add_": "index",
    "aten::index_copy_": "index",
    "aten::index_fill_": "index",
    "aten::index_reduce_": "index",
    "aten::index_put_": "indices",
    "aten::_index_put_impl_": "indices",
    "aten::scatter_": "index",
    "aten::scatter_add_": "index",
    "aten::scatter_reduce_": "index",
}
"""Operators that write only to elements which an argument selects; to none if that is empty."""


def _is_empty(operator: Any, given: Mapping[str, Any], written: torch.Tensor) -> bool:
    """Tell whether an operator writes to no element."""
    selecting = tensors_in(given.get(_BY_INDEX.get(operator._schema.name, "")))
    return written.numel() == 0 or any(tensor.numel() == 0 for tensor in selecting)
