"""Trace one side of each branch on what tensors hold; further traces take the others."""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import came_with_torch, short_name
from hotstart._torch.graphs.sides import keep_to_side
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import memory_written

MOST_BRANCHES = 16
"""Most branches on one way through forward; a loop that contents end has no last one."""

_WRITTEN: dict[Any, str] = {
    **{operator.eq: "{} == {}", operator.ne: "{} != {}", operator.lt: "{} < {}"},
    **{operator.le: "{} <= {}", operator.gt: "{} > {}", operator.ge: "{} >= {}"},
    **{operator.add: "{} + {}", operator.sub: "{} - {}", operator.mul: "{} * {}"},
    **{operator.truediv: "{} / {}", operator.floordiv: "{} // {}", operator.mod: "{} % {}"},
    **{operator.and_: "{} & {}", operator.or_: "{} | {}", operator.xor: "{} ^ {}"},
    **{operator.neg: "-{}", operator.abs: "abs({})"},
    **{operator.not_: "not {}", torch.sym_not: "not {}"},
    **{torch.sym_float: "float({})", torch.sym_int: "int({})"},
}
"""Python source for what a node computes of numbers."""

_READS_ONLY = frozenset(
    {"any", "all", "max", "min", "sum", "eq", "ne", "lt", "le", "gt", "ge", "logical_not"}
)
"""Names of operators of torch that give the same for the same tensors."""


class Sides:
    """Decides the branches of a trace.

    Args:
        given: the sides of the first branches, which calls that come here have taken. Of others,
            the trace takes the one on which the condition does not hold.
    """

    def __init__(self, given: Sequence[bool] = ()) -> None:
        self._given = tuple(given)
        self._taken: list[bool] = []
        self._known: dict[Hashable, bool] = {}
        self._output: Any = None

    @property
    def taken(self) -> tuple[bool, ...]:
        """The sides of all branches, in order."""
        return tuple(self._taken)

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
        key = condition.key(written)
        if key is not None and key in self._known:
            return self._known[key]
        if len(self._taken) == MOST_BRANCHES:
            return None
        side = self._take(tx, condition)
        if key is not None:
            self._known[key] = side
        return side

    def _take(self, tx: Any, condition: _Condition) -> bool:
        number = len(self._taken)
        if number < len(self._given):
            side = self._given[number]
        else:
            side = False
            arguments = condition.source, tuple(condition.operands), side, (*self._taken, not side)
            tx.output.create_proxy("call_function", keep_to_side, arguments, {})
        self._taken.append(side)
        return side


def _ends_a_while(jump: Any) -> bool:
    """Tell whether a condition begins one more round of a loop, of which there may be any number.

    Python 3.11 has instructions of their own for that.
    """
    return "BACKWARD" in jump.opname and jump.target.opname != "FOR_ITER"


@dataclass
class _Condition:
    """A condition in words of Python.

    Attributes:
        source: the condition, with `{0}` for the first operand.
        operands: as `keep_to_side` takes them.
    """

    source: str = ""
    operands: list[fx.Proxy] = field(default_factory=list)

    def key(self, written: set[int]) -> Hashable:
        """The same for conditions that are computed in the same way of the same contents.

        None where something was written to them: a tensor may have held something else.
        """
        try:
            return self.source, *(_computed(each.node, written) for each in self.operands)
        except LookupError:
            return None

    def operand(self, proxy: fx.Proxy) -> str:
        """Add an operand, and return how the source names it."""
        self.operands.append(proxy)
        return f"{{{len(self.operands) - 1}}}"


def _condition(tx: Any, value: Any, written: set[int]) -> _Condition | None:
    """Write a condition; None for one that is not made of numbers that tensors hold."""
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

    made = _Condition()
    if isinstance(value, TensorVariable):
        proxy: fx.Proxy = value.as_proxy()
        if not _is_one(proxy.node.meta["example_value"]):
            return None
        made.source = made.operand(proxy)
        return made
    if not isinstance(value, SymNodeVariable):
        return None

    def of(item: Any) -> str:
        """Write a number of the graph; `LookupError` if nothing here does."""
        if not isinstance(item, fx.Node):
            return _literal(item)
        proxy = fx.Proxy(item, tx.output.current_tracer)
        if item.op == "call_method" and item.target == "item":
            source = item.args[0]
            assert isinstance(source, fx.Node)
            if storage_of(source.meta["example_value"]) in written:
                raise LookupError(item)  # it may not hold what was read
            return made.operand(fx.Proxy(source, tx.output.current_tracer))
        if item.target in _WRITTEN and not item.kwargs:
            return f"({_WRITTEN[item.target].format(*map(of, item.args))})"
        if isinstance(item.meta.get("example_value"), torch.SymInt):  # such as a result's size
            return made.operand(proxy)
        raise LookupError(item)

    try:
        made.source = of(value.as_proxy().node)
    except LookupError:
        return None
    return made


def _literal(item: Any) -> str:
    if type(item) in (bool, int) or (type(item) is float and math.isfinite(item)):
        return repr(item)
    raise LookupError(item)


def _is_one(example: Any) -> bool:
    """Tell whether an example is a tensor of one element, whatever the sizes."""
    return isinstance(example, torch.Tensor) and all(
        isinstance(size, int) and size == 1 for size in example.shape
    )


def _computed(item: Any, written: set[int]) -> Hashable:
    """Tell how an argument is computed.

    Raises:
        LookupError: something was written to what it is computed of.
    """
    if not isinstance(item, fx.Node):
        return type(item), repr(item)
    example = item.meta.get("example_value")
    if isinstance(example, torch.Tensor) and storage_of(example) in written:
        raise LookupError(item)
    if not (came_with_torch(item) and short_name(item) in _READS_ONLY):
        return item
    named = ((name, _computed(value, written)) for name, value in sorted(item.kwargs.items()))
    return short_name(item), *(_computed(each, written) for each in item.args), *named
