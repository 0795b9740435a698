"""Name the operators of a graph, however it spells them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.operator_types import HigherOrderOperator, OpOverload, OpOverloadPacket
from hotstart.partition.tokens import came_with_torch

_ATEN_NAMES = {
    "and_": "bitwise_and",
    "or_": "bitwise_or",
    "xor": "bitwise_xor",
    "invert": "bitwise_not",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "iadd": "add_",
    "isub": "sub_",
    "imul": "mul_",
    "itruediv": "div_",
}
"""Names of aten for Python's operators, where they differ."""


def names_of(node: fx.Node) -> frozenset[str]:
    """List every name that a user may give the operator of a node.

    `aten::relu`, `aten::relu.default`, `relu`, `torch.relu`, `torch.nn.functional.relu` all name
    the node of `x.relu()`, as they name those of `torch.relu(x)` and of `torch.ops.aten.relu(x)`.
    An overload names the nodes that call it, and those that name no overload.
    """
    target: Any = node.target
    if node.op == "call_method":
        return frozenset(_function_names(str(target)))
    if node.op != "call_function":
        return frozenset()
    if isinstance(target, OpOverload):
        return frozenset(_operator_names(target._schema.name, [target._overloadname]))
    if isinstance(target, OpOverloadPacket):
        return frozenset(_operator_names(target._qualified_op_name, target.overloads()))
    if isinstance(target, HigherOrderOperator):
        return frozenset({f"higher_order::{target.name()}", target.name()})
    qualified = qualified_name(target)
    short = qualified.rpartition(".")[2]
    if qualified.startswith("operator."):
        short = _ATEN_NAMES.get(short, short)
    return frozenset({qualified, short, *_function_names(short)})


def name_given(name: Any) -> str:
    """Turn a string, an operator or a function of `split_on` into a name.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(name, str):
        return name.removeprefix("torch.ops.")
    if isinstance(name, OpOverload):
        return f"{name._schema.name}.{name._overloadname}"
    if isinstance(name, OpOverloadPacket):
        return str(name._qualified_op_name)
    if isinstance(name, HigherOrderOperator):
        return str(name.name())
    custom = getattr(name, "_qualname", None)  # what torch.library.custom_op returns
    if isinstance(custom, str):
        return custom
    if callable(name):
        return qualified_name(name)
    raise TypeError(f"{name!r} names no operator")


def known_among(split_on: Any, nodes: Iterable[fx.Node]) -> list[Any]:
    """Leave out operators of `split_on` that exist but that no node calls.

    One graph of a model need not call the operators of another. An unknown name is kept: it is an
    error.
    """
    wanted = list(split_on) if isinstance(split_on, list | tuple) else [split_on]
    present = {name for node in nodes for name in names_of(node)}
    return [name for name in wanted if not _exists(name) or name_given(name) in present]


def _exists(name: Any) -> bool:
    """Tell whether something names an operator of torch, or one that was registered."""
    if not isinstance(name, str):
        return callable(name)
    home, _, packet = name.removeprefix("torch.ops.").partition("::")
    if packet:
        return hasattr(getattr(torch.ops, home), packet.partition(".")[0])
    parts = [part for part in name.split(".") if part not in ("torch", "ops", "aten")]
    homes = (torch.ops.aten, torch, torch.Tensor, torch.nn.functional, operator)
    return any(hasattr(home, part) for part in parts for home in homes)


def qualified_name(target: Any) -> str:
    """Name a function as a user would import it: `module.name`, the short one if torch has one."""
    name = getattr(target, "__name__", type(target).__name__)
    for module in (torch.nn.functional, torch, operator):
        if getattr(module, name, None) is target:
            return f"{module.__name__.removeprefix('_')}.{name}"
    return f"{getattr(target, '__module__', None) or 'torch'}.{name}"


def _function_names(name: str) -> Iterator[str]:
    """List the names of a function or method that calls the aten operator of its name, if any."""
    yield name
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return
    for overload in ("", *(f".{overload}" for overload in packet.overloads())):
        yield f"aten::{name}{overload}"
        yield f"aten.{name}{overload}"
    for owner, prefix in (
        (torch, "torch"),
        (torch.Tensor, "torch.Tensor"),
        (torch.nn.functional, "torch.nn.functional"),
        (operator, "operator"),
    ):
        if hasattr(owner, name):
            yield f"{prefix}.{name}"


def _operator_names(packet: str, overloads: list[str]) -> Iterator[str]:
    """List the names of a registered operator: `aten::relu`, `aten.relu.default`, ..."""
    namespace, _, name = packet.partition("::")
    for overload in ("", *(f".{overload}" for overload in overloads)):
        yield f"{packet}{overload}"
        yield f"{namespace}.{name}{overload}"
    if namespace == "aten":
        yield from (n for n in _function_names(name) if not n.startswith(("aten::", "aten.")))


def foreign_operators(module: fx.GraphModule) -> frozenset[str]:
    """List the operators in a graph and its sub-graphs that did not come with torch."""
    graphs = [inner.graph for inner in module.modules() if isinstance(inner, fx.GraphModule)]
    targets = {node.target for graph in graphs for node in graph.nodes}
    names = {operator_name(target) for target in targets}
    return frozenset(name for name in names if name and not came_with_torch(name))


def operator_name(target: Any) -> str:
    """The registered name of an operator; empty for anything else."""
    if isinstance(target, OpOverload):
        return str(target._schema.name)
    return str(target._qualified_op_name) if isinstance(target, OpOverloadPacket) else ""
