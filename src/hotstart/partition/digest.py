"""Hash everything about a run of nodes that reaches a compiler.

Two runs get the same digest only if a compiler cannot tell them apart: the same operators with
full names and overloads, the same constants with their types, the same nesting of arguments, the
same dtypes, devices, shapes, strides and aliasing of inputs, the same offsets where they count, the
same expressions over axes up to the names of the axes. Names of nodes, weights and modules do not
count. A digest is one part of a piece's key: see `compilers/piece_key`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import attribute_of
from hotstart._torch.graphs.operator_types import HigherOrderOperator, OpOverload, OpOverloadPacket
from hotstart._torch.graphs.symbols import axis_symbol
from hotstart._torch.graphs.values import storage_of
from hotstart.capture.captured import example_of
from hotstart.errors import PartitionError
from hotstart.partition.graph import movable
from hotstart.partition.tokens import Token, constant, constant_token, import_path
from hotstart.records.groups import GroupName

if TYPE_CHECKING:
    import sympy

    from hotstart.partition.graph import Graph


class Canonical:
    """Turns a run of nodes into tokens that do not depend on names.

    Args:
        graph: the graph the run is of.
        targets: tokens of what nodes call, kept from run to run of a graph.
    """

    def __init__(self, graph: Graph, targets: dict[Any, Token] | None = None) -> None:
        self._graph = graph
        self._targets = {} if targets is None else targets
        self._numbers: dict[fx.Node, int] = {}
        self._storages: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        self._renamed: dict[sympy.Symbol, sympy.Symbol] = {}
        self._expressions: dict[sympy.Expr, Token] = {}

    @property
    def axes(self) -> tuple[str, ...]:
        """List the axes met so far, in order; the n-th is called `a<n>` in the tokens."""
        return tuple(map(str, self._renamed))

    def run(
        self, nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> Token:
        """Describe a run with its inputs and outputs."""
        anywhere = movable(nodes, inputs)
        return (
            tuple(self.input(node, node in anywhere) for node in inputs),
            tuple(self.node(node) for node in nodes),
            tuple(self._numbers[node] for node in outputs),
        )

    def input(self, node: fx.Node, anywhere: bool) -> Token:
        """Number an input and describe its tensor; `anywhere` leaves its storage offset out.

        Raises:
            PartitionError: it is a nested tensor, whose sizes no expression says.
        """
        if getattr(example_of(node), "is_nested", False):
            raise PartitionError(
                f"{node.name} is a nested tensor that crosses a cut, takes plain tensors there. "
                "Cut elsewhere, or pass its values on with .values()."
            )
        self._numbers[node] = len(self._numbers)
        tensor = example_of(node)
        if node in self._graph.flowing:
            return ("number",)
        offset = 0 if anywhere else self._number(tensor.storage_offset())
        return (int(self._graph.is_weight(node)), self.tensor(tensor), offset)

    def node(self, node: fx.Node) -> Token:
        """Number a node and describe what it computes."""
        graph = self._graph
        tokens: Token = (
            node.op,
            self.attribute(node) if node.op == "get_attr" else self._target(node.target),
            argument_token(graph.args(node), self._leaf),
            argument_token(graph.kwargs(node), self._leaf),
        )
        self._numbers[node] = len(self._numbers)
        return tokens

    def tensor(self, tensor: torch.Tensor) -> Token:
        """Describe an input tensor, but for its contents and its storage offset."""
        shared = self._storages.setdefault(storage_of(tensor), len(self._storages))
        return (
            str(tensor.dtype),
            str(tensor.device),
            str(tensor.layout),
            tuple(map(self._number, tensor.shape)),
            tuple(map(self._number, tensor.stride())),
            int(tensor.is_conj()),
            int(tensor.is_neg()),
            shared,
        )

    def attribute(self, node: fx.Node) -> Token:
        """Describe a constant of the graph: a tensor by its contents, a sub-graph by its nodes."""
        return _held_token(attribute_of(self._graph.captured.module, str(node.target)))

    def _target(self, target: Any) -> Token:
        known = self._targets.get(target)
        if known is None:
            known = self._targets[target] = _target_token(target)
        return known

    def _number(self, number: int | torch.SymInt) -> Token:
        if type(number) is int:
            return number
        return argument_token(self._graph.expression(number), self._leaf)

    def _leaf(self, value: Any) -> Token:
        """Describe a node by number, an expression with axes renamed, a constant with its type."""
        if isinstance(value, fx.Node):
            return ("node", self._numbers[value])
        if isinstance(value, GroupName):
            number = self._groups.setdefault(value.slot.number, len(self._groups))
            return ("group", number, value.size)
        if hasattr(value, "free_symbols"):
            return self._expression(value)
        return constant_token(value)

    def _expression(self, expr: sympy.Expr) -> Token:
        known = self._expressions.get(expr)
        if known is None:
            import sympy

            for symbol in sorted(expr.free_symbols, key=self._graph.axis_number):
                if symbol not in self._renamed:
                    self._renamed[symbol] = axis_symbol(f"a{len(self._renamed)}")
            known = ("expr", sympy.srepr(expr.xreplace(self._renamed)))
            self._expressions[expr] = known
        return known


def argument_token(value: Any, leaf: Callable[[Any], Token]) -> Token:
    """Describe an argument by the nesting and types of its containers, and the rest by `leaf`."""
    kind = type(value)
    if kind in _LEAVES:
        return leaf(value)
    if isinstance(value, Mapping):
        pairs = [(constant_token(k), argument_token(v, leaf)) for k, v in value.items()]
        return ("dict", *sorted(pairs, key=repr))
    if isinstance(value, list):
        return ("list", *(argument_token(item, leaf) for item in value))
    if kind is tuple or isinstance(value, torch.Size):
        return ("tuple", *(argument_token(item, leaf) for item in value))
    if isinstance(value, tuple):
        return (kind.__module__, kind.__qualname__, *(argument_token(v, leaf) for v in value))
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return ("slice", *(argument_token(end, leaf) for end in ends))
    return leaf(value)


_LEAVES = frozenset({fx.Node, int, float, bool, str, type(None), torch.dtype, torch.device})


def _held_token(value: Any) -> Token:
    """Describe an attribute of a module: a sub-graph by its nodes, a tensor by its contents."""
    if isinstance(value, fx.GraphModule):
        return ("graph", subgraph_token(value))
    if isinstance(value, torch.Tensor):
        layout = (str(value.dtype), str(value.device), tuple(value.shape), tuple(value.stride()))
        return ("constant", layout, constant(value))
    return ("object", id(value))


def subgraph_token(module: fx.GraphModule) -> Token:
    """Describe the body of a higher-order operator."""
    numbers = {node: index for index, node in enumerate(module.graph.nodes)}

    def leaf(value: Any) -> Token:
        return ("node", numbers[value]) if isinstance(value, fx.Node) else constant_token(value)

    def target(node: fx.Node) -> Token:
        if node.op == "get_attr":
            return _held_token(attribute_of(module, str(node.target)))
        return () if node.op in ("placeholder", "output") else _target_token(node.target)

    return tuple(
        (node.op, target(node), argument_token(node.args, leaf), argument_token(node.kwargs, leaf))
        for node in module.graph.nodes
    )


def _target_token(target: Any) -> Token:
    """Describe the target of a node: a method's name, an overload, a function's import path.

    A function without an import path is described by its identity.
    """
    if isinstance(target, str):
        return target
    if isinstance(target, OpOverload):
        return ("op", f"{target._schema.name}.{target._overloadname}")
    if isinstance(target, OpOverloadPacket | HigherOrderOperator):
        return ("op", str(target))
    path = import_path(target)
    return ("function", *path) if path is not None else ("object", id(target))
