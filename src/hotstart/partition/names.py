"""The names of operators, however a graph spells them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx


def names_of(node: fx.Node) -> frozenset[str]:
    """Every name a user may give the operator of a node.

    `aten::relu`, `aten::relu.default`, `relu`, `torch.relu`, `torch.nn.functional.relu` all name
    the node of `x.relu()`, as they name those of `torch.relu(x)` and of `torch.ops.aten.relu(x)`.
    """
    target = node.target
    if node.op == "call_method":
        return _function_names(str(target), ())
    if node.op != "call_function":
        return frozenset()
    if isinstance(target, torch._ops.OpOverload):
        packet = target._schema.name
        return frozenset({packet, f"{packet}.{target._overloadname}"}) | _dotted(packet)
    if isinstance(target, torch._ops.OpOverloadPacket):
        return frozenset({target._qualified_op_name}) | _dotted(target._qualified_op_name)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return frozenset({f"higher_order::{target.name()}", target.name()})
    return _function_names(getattr(target, "__name__", ""), (qualified_name(target),))


def name_given(name: Any) -> str:
    """The name a user meant by a string or by the operator or function itself.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(name, str):
        return name.removeprefix("torch.ops.")
    if isinstance(name, torch._ops.OpOverload):
        return f"{name._schema.name}.{name._overloadname}"
    if isinstance(name, torch._ops.OpOverloadPacket):
        return name._qualified_op_name
    if isinstance(name, torch._ops.HigherOrderOperator):
        return name.name()
    custom = getattr(name, "_qualname", None)  # what torch.library.custom_op returns
    if isinstance(custom, str):
        return custom
    if callable(name):
        return qualified_name(name)
    raise TypeError(f"{name!r} names no operator")


def qualified_name(target: Any) -> str:
    """`module.name` of a function, as a user would import it where torch gives it a short name."""
    name = getattr(target, "__name__", type(target).__name__)
    for module in (torch.nn.functional, torch, operator):
        if getattr(module, name, None) is target:
            return f"{module.__name__.replace('_operator', 'operator')}.{name}"
    return f"{getattr(target, '__module__', None) or 'torch'}.{name}"


def _function_names(name: str, more: tuple[str, ...]) -> frozenset[str]:
    found = {name, *more}
    if hasattr(torch.ops.aten, name):
        found |= {f"aten::{name}", f"aten.{name}"}
        found |= {f"torch.{name}"} if hasattr(torch, name) else set()
        found |= {f"torch.Tensor.{name}"} if hasattr(torch.Tensor, name) else set()
        found |= {f"torch.nn.functional.{name}"} if hasattr(torch.nn.functional, name) else set()
        found |= {f"operator.{name}"} if hasattr(operator, name) else set()
    return frozenset(found)


def _dotted(packet: str) -> frozenset[str]:
    namespace, _, name = packet.partition("::")
    plain = _function_names(name, ()) if namespace == "aten" else frozenset()
    return plain | {f"{namespace}.{name}"}
