"""Trace one side of each branch on what tensors hold; further traces take the others."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import short_name
from hotstart._torch.graphs.sides import keep_to_side
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import memory_written

MOST_BRANCHES = 16
"""Most branches on one way through forward; a loop that contents end has no last one."""

_COMPARE: dict[Any, Callable[..., Any]] = {
    **{compare: compare for compare in (operator.eq, operator.ne, operator.lt, operator.le)},
    **{compute: compute for compute in (operator.gt, operator.ge, operator.add, operator.sub)},
    operator.mul: operator.mul,
    operator.and_: torch.logical_and,
    operator.or_: torch.logical_or,
    operator.not_: torch.logical_not,
    torch.sym_not: torch.logical_not,
}
"""What does for tensors what an operator does for the numbers that they hold."""

_READS_ONLY = frozenset(
    {"any", "all", "max", "min", "sum", "eq", "ne", "lt", "le", "gt", "ge", "logical_not"}
)
"""Names of operators that give the same for the same tensors."""


class Sides:
    """Decides the branches of a trace.

    Args:
        given: the sides of the first branches. Of others, the trace takes the one on which the
            condition does not hold.
    """

    def __init__(self, given: Sequence[bool] = ()) -> None:
        self._given = tuple(given)
        self._taken: list[bool] = []
        self._known: dict[Hashable, bool] = {}
        self._output: Any = None

    def decide(self, tx: Any, jump: Any, value: Any) -> bool | None:
        """Decide a condition, and have the graph keep to that side; None for other conditions.

        Args:
            tx: Dynamo's translator of the frame.
            jump: the instruction that asks for the condition.
            value: its variable.
        """
        if tx.output is not self._output:  # Dynamo begins anew
            self._output, self._taken, self._known = tx.output, [], {}
        if not tx.output.is_root_tracer() or _ends_a_while(jump):
            return None
        written = memory_written(tx.output.graph)
        condition = _condition(tx, value.realize(), written)
        if condition is None:
            return None
        key = _key(condition.node, written)
        if key is not None and key in self._known:
            return self._known[key]
        if len(self._taken) == MOST_BRANCHES:
            return None
        side = self._take(tx, condition)
        if key is not None:
            self._known[key] = side
        return side

    def _take(self, tx: Any, condition: fx.Proxy) -> bool:
        number = len(self._taken)
        side = self._given[number] if number < len(self._given) else False
        other = (*self._taken, not side)
        self._taken.append(side)
        tx.output.create_proxy("call_function", keep_to_side, (condition, side, other), {})
        return side


def _ends_a_while(jump: Any) -> bool:
    """Tell whether a condition begins one more round of a loop, of which there may be any number.

    Python 3.11 has instructions of their own for that.
    """
    return "BACKWARD" in jump.opname and jump.target.opname != "FOR_ITER"


def _condition(tx: Any, value: Any, written: set[int]) -> fx.Proxy | None:
    """The tensor whose one element decides a condition; None where there is none."""
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

    if isinstance(value, TensorVariable):
        proxy: fx.Proxy = value.as_proxy()
        return proxy if _is_one(proxy.node.meta["example_value"]) else None
    if not isinstance(value, SymNodeVariable):
        return None
    return _AsTensors(tx, written).of(value.as_proxy().node)


def _is_one(example: Any) -> bool:
    """Tell whether an example is a tensor of one element, whatever the sizes."""
    return isinstance(example, torch.Tensor) and all(
        isinstance(size, int) and size == 1 for size in example.shape
    )


class _AsTensors:
    """Makes tensors that hold numbers of a graph.

    What the numbers are may be known later in the trace, by a check, and conditions on them would
    be known then.
    """

    def __init__(self, tx: Any, written: set[int]) -> None:
        self._tx = tx
        self._written = written
        self._made: dict[fx.Node, fx.Proxy | None] = {}

    def of(self, node: fx.Node) -> fx.Proxy | None:
        """The tensor of a number; None if no operator here makes it."""
        if node not in self._made:
            self._made[node] = self._new(node)
        return self._made[node]

    def _new(self, node: fx.Node) -> fx.Proxy | None:
        if node.op == "call_method" and node.target == "item":
            return self._read(node.args[0])
        if isinstance(node.meta.get("example_value"), torch.SymInt):  # such as a result's size
            return _made(self._tx, torch.scalar_tensor, self._proxy(node))
        compute = _COMPARE.get(node.target)
        if compute is None or node.kwargs:
            return None
        operands = [self.of(each) if isinstance(each, fx.Node) else each for each in node.args]
        known = all(isinstance(each, fx.Proxy | bool | int | float) for each in operands)
        return _made(self._tx, compute, *operands) if known else None

    def _read(self, source: Any) -> fx.Proxy | None:
        """The tensor that a number was read from, if it holds it still."""
        example = source.meta["example_value"]
        if storage_of(example) in self._written:
            return None
        if example.dtype is torch.bool:
            return self._proxy(source)
        # The number is a Python int or float.
        wide = torch.float64 if example.dtype.is_floating_point else torch.int64
        return _made(self._tx, torch.Tensor.to, self._proxy(source), wide)

    def _proxy(self, node: fx.Node) -> fx.Proxy:
        return fx.Proxy(node, self._tx.output.current_tracer)


def _made(tx: Any, function: Callable[..., Any], *args: Any) -> fx.Proxy:
    """Put an operator into the graph, with the fake value that Dynamo gives it."""
    from torch._dynamo.variables.builder import wrap_fx_proxy

    made: Any = wrap_fx_proxy(tx, tx.output.create_proxy("call_function", function, args, {}))
    proxy: fx.Proxy = made.as_proxy()
    return proxy


def _key(condition: fx.Node, written: set[int]) -> Hashable:
    """The same for conditions that are computed in the same way of the same contents.

    None where something was written to them: the same tensor may have held something else.
    """

    def of(item: Any) -> Hashable:
        if not isinstance(item, fx.Node):
            return type(item), repr(item)
        example = item.meta.get("example_value")
        if isinstance(example, torch.Tensor) and storage_of(example) in written:
            raise LookupError
        if not item.op.startswith("call") or short_name(item) not in _READS_ONLY:
            return item
        named = ((name, of(value)) for name, value in sorted(item.kwargs.items()))
        return short_name(item), *map(of, item.args), *named

    try:
        return of(condition)
    except LookupError:
        return None
