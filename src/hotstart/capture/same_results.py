"""What graphs return, in a form that is equal for graphs that compute the same."""

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
    """Describe what a graph returns; None if it writes in a way that is not followed.

    What was written to a tensor counts where it, or one on the same memory, is read afterwards.

    Args:
        captured: the graph.
        names: other names for some of its axes.
    """
    inputs = iter(captured.inputs)
    known: dict[fx.Node, object] = {}
    memory: dict[int, object] = {}

    def value(node: fx.Node) -> object:
        return _Known((known[node], *(memory.get(at, 0) for at in _memory_of(node))))

    mapped: Any = fx.node.map_arg
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            known[node] = _renamed(repr(next(inputs)), names)
        elif node.op != "output":
            forms = {each: _form(each, captured, names, sized) for each, sized in _by_form(node)}
            read = mapped((node.args, node.kwargs), lambda n: forms[n] if n in forms else value(n))
            known[node] = hash((node.op, _name(node, captured), repr(read)))
            for written in _written(node):
                for at in _memory_of(written):
                    memory[at] = hash((memory.get(at, 0), known[node]))
    tensors = (t for node in known for t in tensors_in(example_of(node)))
    if not {storage_of(tensor) for tensor in tensors if was_mutated(tensor)} <= memory.keys():
        return None
    (returned,) = (node.args[0] for node in captured.graph.find_nodes(op="output"))
    made = [value(each) if isinstance(each, fx.Node) else repr(each) for each in returned]
    return _tree(captured.outputs, made, names)


_LIKE = frozenset({"zeros_like", "ones_like", "full_like"})
_NEW = frozenset({"new_zeros", "new_ones", "new_full"})
_AS = {"to": False, "type_as": False, "expand_as": True, "view_as": True, "reshape_as": True}
"""Methods that read the form of their second argument, and whether its shape is part of that."""


def _by_form(node: fx.Node) -> Iterator[tuple[fx.Node, bool]]:
    """The arguments of which an operator reads the form alone, and whether it reads their shape."""
    name = _word(node)
    if name in _LIKE | _NEW and node.args:
        yield from ((each, name in _LIKE) for each in node.args[:1] if isinstance(each, fx.Node))
    if node.op == "call_method" and name in _AS:
        yield from ((each, _AS[name]) for each in node.args[1:2] if isinstance(each, fx.Node))


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
        found: list[fx.Node] = []
        fx.node.map_arg(value, found.append)
        yield from found


_IN_PLACE = frozenset(
    {operator.setitem, operator.iadd, operator.isub, operator.imul, operator.itruediv,
     operator.ifloordiv, operator.imod, operator.ipow, operator.iand, operator.ior, operator.ixor}
)  # fmt: skip


def _name(node: fx.Node, captured: Captured) -> str:
    """An operator, or a graph within the graph as text."""
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
