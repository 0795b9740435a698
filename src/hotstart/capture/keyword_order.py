"""Detect a forward that depends on the order of its `**kwargs`.

A program takes such arguments by name, in any order. So the graphs traced for other orders must be
equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx

from hotstart._torch.graphs.writes import was_mutated
from hotstart.capture.arguments import Arguments
from hotstart.capture.captured import Captured, example_of, tensors_in
from hotstart.capture.same_results import operator_name
from hotstart.records.nested import Map, Slot, Tree, children


def other_orders(arguments: Arguments) -> Iterator[Arguments]:
    """Reorder arguments so that each has another place and other neighbours."""
    if arguments.unnamed < 2:
        return
    first = len(arguments.parameters) - arguments.unnamed
    named, rest = arguments.parameters[:first], arguments.parameters[first:]
    for order in dict.fromkeys((rest[::-1], (*rest[1:], rest[0]))):
        yield dataclasses.replace(arguments, parameters=(*named, *order))


def computes(captured: Captured) -> object:
    """Describe what a graph computes of its inputs; equal for graphs that compute the same.

    The order of operators counts where any of them writes, that of entries of dicts does not.
    """
    inputs = iter(captured.inputs)
    known: dict[fx.Node, object] = {}
    writes = False
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            known[node] = hash((node.op, repr(next(inputs))))
        elif node.op != "output":
            known[node] = hash((node.op, operator_name(node, captured), *_read(node, known)))
        writes = writes or any(map(was_mutated, tensors_in(example_of(node))))
    (outputs,) = (node.args[0] for node in captured.graph.nodes if node.op == "output")
    made = [known.get(each, repr(each)) for each in outputs]
    changes = [(each.number, each.removed, _tree(each.contents, made)) for each in captured.changes]
    updates = [(each.owner, each.name, _tree(each.value, made)) for each in captured.updates]
    operators = (value for node, value in known.items() if node.op != "placeholder")
    order = list(operators) if writes else []
    return (
        _tree(captured.outputs, made),
        sorted(changes, key=repr),
        sorted(updates, key=repr),
        order,
    )


def _read(node: fx.Node, known: Mapping[fx.Node, object]) -> tuple[str, str]:
    """The arguments of an operator, with what each node among them computes."""

    def text(value: Any) -> Any:
        mapped: Any = fx.node.map_arg
        return mapped(value, lambda each: _Known(known[each]))

    return repr(text(node.args)), repr(sorted(text(node.kwargs).items()))


@dataclasses.dataclass(frozen=True)
class _Known:
    """Stands for a node by what it computes."""

    value: object


def _tree(tree: Tree, made: list[object]) -> object:
    """A tree with outputs by what they compute, and dicts in the order of their keys."""
    if isinstance(tree, Slot):
        return made[tree.index] if tree.kind == "out" else repr(tree)
    inner = [(repr(child.key), _tree(child.value, made)) for child in children(tree)]
    if not inner:
        return repr(tree)
    return (
        type(tree),
        repr(getattr(tree, "cls", "")),
        *(sorted(inner, key=repr) if isinstance(tree, Map) else inner),
    )
