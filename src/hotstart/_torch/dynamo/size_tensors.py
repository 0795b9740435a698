"""Read whole numbers that tensors compute from sizes alone as expressions of the sizes.

`torch.div(x.size(1), 8, rounding_mode="trunc")` is a tensor. The number in it would be one that
depends on data, of which a trace knows nothing, where a shape is made of it.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import came_with_torch, short_name
from hotstart._torch.graphs.symbols import expression
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import memory_written

_MAKE = frozenset({"tensor", "scalar_tensor", "as_tensor"})

_DIVIDE = frozenset({"div", "divide", "floor_divide", "floordiv"})

_COMPUTE = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}


def number_of_sizes(tx: Any, variable: Any) -> Any:
    """The variable of the number in a tensor; None if it follows from anything but sizes.

    Args:
        tx: Dynamo's translator of the frame.
        variable: that of the tensor.
    """
    from torch._dynamo.variables import BuiltinVariable, ConstantVariable
    from torch._dynamo.variables.tensor import SymNodeVariable

    read: list[torch.Tensor] = []

    def of(item: Any) -> Any:
        """The variable of a number, or of a tensor that holds one."""
        if type(item) is int:
            return ConstantVariable.create(item)
        if not isinstance(item, fx.Node):
            return None
        example: Any = item.meta.get("example_value")
        if isinstance(example, torch.SymInt):
            return None if _of_data(example) else SymNodeVariable.create(tx, proxy(item), example)
        if not _is_whole(example) or not came_with_torch(item):
            return None
        read.append(example)
        name = short_name(item)
        if name in _MAKE and len(item.args) == 1:
            return of(item.args[0])
        if len(item.args) != 2:
            return None
        if name in _DIVIDE and _rounds(item, name) and _is_positive(item.args[1]):
            return compute(operator.floordiv, *item.args)
        if name in _COMPUTE and not item.kwargs:
            return compute(_COMPUTE[name], *item.args)
        return None

    def proxy(node: fx.Node) -> fx.Proxy:
        return fx.Proxy(node, tx.output.current_tracer)

    def compute(function: Any, *operands: Any) -> Any:
        found = [of(operand) for operand in operands]
        return None if None in found else BuiltinVariable(function).call_function(tx, found, {})

    found = of(variable.as_proxy().node)
    if found is None or not read:
        return found
    written = memory_written(tx.output.graph)
    return None if any(storage_of(each) in written for each in read) else found


def _is_whole(example: Any) -> bool:
    return isinstance(example, torch.Tensor) and example.dim() == 0 and example.dtype is torch.int64


def _is_positive(item: Any) -> bool:
    return type(item) is int and item > 0


def _of_data(number: torch.SymInt) -> bool:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(number))


def _rounds(node: fx.Node, name: str) -> bool:
    """Tell whether a division gives what `//` gives."""
    if name in ("floor_divide", "floordiv"):
        return not node.kwargs
    (key, mode), *others = [*node.kwargs.items(), ("", "")]
    if key != "rounding_mode" or others[1:]:
        return False
    return mode == "floor" or (mode == "trunc" and _is_never_negative(node.args[0]))


def _is_never_negative(item: Any) -> bool:
    """Tell whether a number is none below 0, for any size."""
    if type(item) is int:
        return item >= 0
    example = item.meta.get("example_value") if isinstance(item, fx.Node) else None
    if not isinstance(example, torch.SymInt):
        return False
    bounds = example.node.shape_env.bound_sympy(expression(example))
    return bool(bounds.lower >= 0)
