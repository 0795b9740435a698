"""Describe what graphs return, equally for graphs that compute the same."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import was_mutated, written_arguments
from hotstart.capture.captured import Captured, example_of, tensors_in
from hotstart.records.nested import Slot, Tree, children


def results_of(captured: Captured, names: Mapping[str, str]) -> object:
    """Describe what a graph returns; None if it changes something in a way that is not followed.

    What was written to a tensor counts where it, or one on the same memory, is read afterwards.

    Args:
        captured: the graph.
        names: other names for some of its axes.
    """
    return _Results(captured, names).described()


class _Results:
    """Nodes of a graph by what they compute, and memory by what was written to it so far."""

    def __init__(self, captured: Captured, names: Mapping[str, str]) -> None:
        self._captured, self._names = captured, names
        self._known: dict[fx.Node, object] = {}
        self._memory: dict[int, object] = {}

    def described(self) -> object:
        """Describe what the graph returns; None if it writes in a way that is not followed."""
        captured = self._captured
        inputs = iter(captured.inputs)
        for node in captured.graph.nodes:
            if node.op == "placeholder":
                self._known[node] = _renamed(repr(next(inputs)), self._names)
            elif node.op != "output":
                self._add(node)
        tensors = (t for node in self._known for t in tensors_in(example_of(node)))
        unknown = any(was_mutated(t) and storage_of(t) not in self._memory for t in tensors)
        if unknown or captured.changes:
            return None
        (output,) = captured.graph.find_nodes(op="output")
        return _tree(captured.outputs, [self._read(each) for each in output.args[0]], self._names)

    def _add(self, node: fx.Node) -> None:
        forms = {each: _form(each, self._captured, self._names, s) for each, s in _by_form(node)}
        mapped: Any = fx.node.map_arg

        def read(each: fx.Node) -> object:
            return forms[each] if each in forms else _Known(self._read(each))

        read_by = repr(mapped((node.args, node.kwargs), read))
        self._known[node] = hash((node.op, operator_name(node, self._captured), read_by))
        for at in (at for written in _written(node) for at in _memory_of(written)):
            self._memory[at] = hash((self._memory.get(at, 0), self._known[node]))

    def _read(self, value: object) -> object:
        """Describe what a node has computed, with what was written to its memory by now."""
        if not isinstance(value, fx.Node):
            return repr(value)
        return (self._known[value], *(self._memory.get(at, 0) for at in _memory_of(value)))


_LIKE = frozenset({"zeros_like", "ones_like", "full_like"})
_NEW = frozenset({"new_zeros", "new_ones", "new_full"})
_AS = {"to": False, "type_as": False, "expand_as": True, "view_as": True, "reshape_as": True}
"""Methods that read the form of their second argument, and whether its shape is part of that."""


def _by_form(node: fx.Node) -> Iterator[tuple[fx.Node, bool]]:
    """The arguments of which an operator reads the form alone, and whether it reads their shape."""
    name, every = _word(node), _nodes_in((node.args, node.kwargs))
    read, sized = node.args[:0], False
    if name in _LIKE | _NEW:
        read, sized = node.args[:1], name in _LIKE
    elif node.op == "call_method" and name in _AS:
        read, sized = node.args[1:2], _AS[name]
    yield from ((e, sized) for e in read if isinstance(e, fx.Node) and every.count(e) == 1)


def _nodes_in(value: Any) -> list[fx.Node]:
    """The nodes in arguments, each as often as it is there."""
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    return found


def _form(node: fx.Node, captured: Captured, names: Mapping[str, str], sized: bool) -> object:
    """The dtype and device of a tensor, and its shape and strides over axes where these count."""
    found = example_of(node)
    if not isinstance(found, torch.Tensor):
        return _Known(repr(node))
    sizes = (*found.shape, *found.stride()) if sized else ()
    texts = [_renamed(str(captured.expression(size)), names) for size in sizes]
    return _Known((found.dtype, found.device, texts))


class _Known:
    """Stands for a node by what it computes."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def _memory_of(node: fx.Node) -> list[int]:
    return [storage_of(tensor) for tensor in tensors_in(example_of(node))]


def _word(node: fx.Node) -> str:
    """The name of an operator without where it is defined."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _written(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes that an operator writes to, or may write to."""
    name = _word(node)
    in_place = name.endswith("_") and not name.endswith("__")
    if in_place or node.target in _IN_PLACE:
        yield from (each for each in node.args[:1] if isinstance(each, fx.Node))
    out: Any = node.kwargs.get("out")
    for value in (out, *written_arguments(node)):
        yield from _nodes_in(value)


_IN_PLACE = frozenset(
    {operator.setitem, operator.iadd, operator.isub, operator.imul, operator.itruediv,
     operator.ifloordiv, operator.imod, operator.ipow, operator.iand, operator.ior, operator.ixor}
)  # fmt: skip


def operator_name(node: fx.Node, captured: Captured) -> str:
    """Name an operator, or write a graph within the graph, or a constant, as text."""
    if node.op != "get_attr":
        return str(node.target)
    held: Any = captured.module
    for part in str(node.target).split("."):
        held = getattr(held, part)
    if isinstance(held, fx.GraphModule):
        return str(held.code)
    return f"{node.target} {held.tolist()}" if isinstance(held, torch.Tensor) else str(held)


def _tree(tree: Tree, made: list[object], names: Mapping[str, str]) -> object:
    if isinstance(tree, Slot):
        if tree.kind == "out":
            return repr(made[tree.index]), tree.views
        index = -1 if tree.kind == "size" else tree.index
        return tree.kind, index, _renamed(tree.expr, names), tree.views
    inner = [(repr(child.key), _tree(child.value, made, names)) for child in children(tree)]
    return (type(tree), repr(getattr(tree, "cls", "")), *inner) if inner else repr(tree)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\w+", lambda found: names.get(found[0], found[0]), text)
