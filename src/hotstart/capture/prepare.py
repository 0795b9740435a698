"""Prepare a captured graph for cutting: name modules, and let only tensors flow in it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from hotstart.capture.captured import example_of, tensors_in


def prepare(graph: fx.Graph, plain_name: Callable[[str], str]) -> None:
    """Prepare a graph in place.

    Args:
        graph: the graph.
        plain_name: gives a module the name it has in the model, for Dynamo's.
    """
    _name_modules(graph, plain_name)
    _take_tuples_apart(graph)
    _bring_attributes(graph)


def _name_modules(graph: fx.Graph, plain_name: Callable[[str], str]) -> None:
    """Give modules in the nodes' `nn_module_stack` the names they have in the model."""
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            node.meta["nn_module_stack"] = {
                key: (plain_name(path), cls) for key, (path, cls) in stack.items()
            }


def _take_tuples_apart(graph: fx.Graph) -> None:
    """Move every `getitem` next to the node that made the tuple, and use items only.

    A use of the whole tuple gets a tuple of items.
    """
    for node in list(graph.nodes):
        if node.op not in ("placeholder", "output"):
            _take_apart(graph, node)


def _bring_attributes(graph: fx.Graph) -> None:
    """Give every use of an attribute, such as a sub-graph, a `get_attr` right before it."""
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        for user in list(node.users):
            with graph.inserting_before(user):
                copy = graph.node_copy(node)
            user.replace_input_with(node, copy)
        graph.erase_node(node)


def is_item(node: fx.Node) -> bool:
    """Tell whether a node takes one item out of a tuple that another node made."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, fx.Node) and isinstance(example_of(source), tuple | list)


def _take_apart(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Take apart the tuple that a node makes, and tuples in it; return the last node of it."""
    example = example_of(node)
    if not isinstance(example, tuple | list) or not tensors_in(example):
        return node
    items = _gather_items(graph, node, len(example))
    whole = [user for user in node.users if user not in items.values()]
    last = node
    for index, item in enumerate(example):
        if index not in items and whole and tensors_in(item):
            with graph.inserting_after(last):
                items[index] = graph.call_function(operator.getitem, (node, index))
            items[index].meta = {**node.meta, "example_value": item}
        if index in items:
            last.append(items[index])
            last = _take_apart(graph, items[index])
    parts = tuple(items.get(index, item) for index, item in enumerate(example))
    for user in whole:
        user.args = _with_parts(user.args, node, parts)
        user.kwargs = _with_parts(user.kwargs, node, parts)
    return last


def _gather_items(graph: fx.Graph, node: fx.Node, length: int) -> dict[int, fx.Node]:
    """Keep one node for each item of a tuple, and remove the others."""
    items: dict[int, fx.Node] = {}
    for user in list(node.users):
        if user.target is operator.getitem and isinstance(user.args[1], int):
            first = items.setdefault(user.args[1] % length, user)
            if first is not user:
                user.replace_all_uses_with(first)
                graph.erase_node(user)
    return items


def _with_parts(args: Any, node: fx.Node, parts: tuple[Any, ...]) -> Any:
    """Replace a node among arguments by a tuple of its parts."""
    return fx.node.map_arg(args, lambda n: parts if n is node else n)
