"""A captured graph as pieces see it: nodes pass tensors, numbers are expressions over axes."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.dynamo.data_numbers import bounds_number
from hotstart._torch.dynamo.layout_reads import Step
from hotstart._torch.graphs.nodes import attribute_of, has_no_effect, names_a_place
from hotstart._torch.graphs.symbols import is_of_integers, substitution
from hotstart._torch.graphs.values import plain_number, storage_of
from hotstart.capture.captured import Captured, example_of
from hotstart.capture.numbers import DataNumber
from hotstart.records.shapes import Variant

if TYPE_CHECKING:
    import sympy


class NodeArguments(NamedTuple):
    """The arguments of a node, and the nodes whose tensors they mention, with repetitions."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: tuple[fx.Node, ...]


_PLAIN = (int, float, str, type(None), torch.dtype, torch.device)


class Graph:
    """A captured graph as pieces see it: only tensors flow, numbers are expressions over axes.

    Sizes, shapes and anything computed from them alone are known as expressions, so they are no
    nodes of any piece and never cross a cut: where a node's arguments mention one, `args` and
    `kwargs` hold the expression, or the tuple of expressions a `torch.Size` is made of.

    Numbers that depend on contents of tensors are in these expressions as axes are. A node that
    makes one is a node of a piece all the same. Floating-point numbers of this kind, and numbers
    computed from them, flow like tensors: an expression might round differently than the operators.

    Attributes:
        captured: the graph this was made of.
        nodes: the nodes that compute, in order.
        placeholders: tensor inputs, with the slot each is bound to.
        fixed: axes that have one size in the variant at hand; see `at`.
        numbers: those that depend on contents of tensors, by the node that makes them.
        flowing: the nodes whose numbers flow like tensors.
    """

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.fixed: Mapping[sympy.Symbol, sympy.Integer] = {}
        self._resolved: dict[fx.Node, NodeArguments] = {}
        self._values: dict[fx.Node, Any] = {}
        self.placeholders: dict[fx.Node, Any] = {}
        self._axis_numbers = {symbol: number for number, symbol in enumerate(captured.axes)}
        inputs = iter(captured.inputs)
        nodes: list[fx.Node] = []
        self.numbers: dict[fx.Node, list[DataNumber]] = {}
        for number in captured.numbers:
            self.numbers.setdefault(number.node, []).append(number)
        self.flowing: set[fx.Node] = set()
        self._of_data = {number.symbol for number in captured.numbers}
        makers = {*self.numbers, *(fact.node for fact in captured.facts)}
        for node in captured.graph.nodes:
            if node.op == "placeholder":
                slot = next(inputs)
                if slot.kind == "size":
                    self._values[node] = self.expression(example_of(node))
                else:
                    self.placeholders[node] = slot
            elif node.op == "output":
                self.output = node
            elif has_no_effect(node) or bounds_number(node):
                continue
            elif not self._is_value(node) or node in makers:
                nodes.append(node)
        self.nodes: tuple[fx.Node, ...] = tuple(nodes)

    def _is_value(self, node: fx.Node) -> bool:
        """Tell whether a node computes numbers from sizes, and record them; pieces leave it out."""
        example = example_of(node)
        if not _is_number(example):
            return False
        if self.is_inexact(example):
            self.flowing.add(node)
            return False
        self._values[node] = _map_numbers(example, self.expression)
        return True

    def expression(self, number: Any) -> Any:
        """Express a number of the graph over axis symbols; a constant is a plain Python number."""
        import sympy

        if isinstance(number, torch.SymInt | torch.SymFloat | torch.SymBool):
            number = self.captured.expression(number)
        if not isinstance(number, sympy.Basic):
            return number
        expr = number.xreplace(dict(self.fixed)) if self.fixed else number
        return plain_number(expr) if not expr.free_symbols else expr

    def symbols_in(self, value: Any) -> set[sympy.Symbol]:
        """The symbols of axes and numbers in numbers and shapes, at any depth of containers."""
        exprs = map(self.expression, _numbers_in(value))
        return {symbol for expr in exprs for symbol in getattr(expr, "free_symbols", ())}

    def is_inexact(self, value: Any) -> bool:
        """Tell whether numbers or shapes follow from data by floating-point arithmetic."""
        exprs = map(self.expression, _numbers_in(value)) if self._of_data else ()
        return any(
            not is_of_integers(expr)
            for expr in exprs
            if not self._of_data.isdisjoint(getattr(expr, "free_symbols", ()))
        )

    def met(self, node: fx.Node) -> tuple[Any, ...]:
        """The arguments of a node, and the fake values of its inputs and itself."""
        examples = [example_of(one) for one in (node, *self.reads(node))]
        return (self.args(node), self.kwargs(node), examples)

    def substitution(self, sizes: Mapping[str, int]) -> dict[sympy.Symbol, sympy.Integer]:
        """Map the symbols of axes and numbers to their replacements, given by name."""
        import sympy

        return {s: sympy.Integer(sizes[str(s)]) for s in self._axis_numbers if str(s) in sizes}

    def number_at(self, number: Any, axes: Mapping[sympy.Symbol, Any]) -> Any:
        """Express a number of the graph with axes replaced, by sizes or by other symbols."""
        import sympy

        known = self.expression(number)
        if not isinstance(known, sympy.Basic):
            return known
        expr = known.xreplace(axes)
        return expr if expr.free_symbols else plain_number(expr)

    def axis_number(self, symbol: sympy.Symbol) -> int:
        """Number an axis by its place in the graph, whatever its name."""
        return self._axis_numbers[symbol]

    def is_weight(self, node: fx.Node) -> bool:
        """Tell whether a node is a tensor of the model, which is bound once for all calls."""
        slot = self.placeholders.get(node)
        return slot is not None and slot.kind == "weight"

    def number(self, item: Any) -> Any:
        """Express an integer among the graph's outputs."""
        value = self._values.get(item, item) if isinstance(item, fx.Node) else item
        return self.expression(value)

    def at(self, variant: Variant) -> Graph:
        """Return this graph with those axes fixed that have one size in a variant."""
        return self.with_fixed({a: c for a, c in variant.choices if isinstance(c, int)})

    def with_fixed(self, sizes: Mapping[str, int]) -> Graph:
        """Return this graph with these axes fixed, and no others."""
        bound = copy.copy(self)
        bound._resolved = {}
        bound.fixed = substitution(sizes)
        return bound

    def args(self, node: fx.Node) -> tuple[Any, ...]:
        """A node's positional arguments: tensors as nodes, numbers as expressions."""
        return self.arguments(node).args

    def kwargs(self, node: fx.Node) -> dict[str, Any]:
        """A node's keyword arguments, likewise."""
        return self.arguments(node).kwargs

    def reads(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The nodes whose tensors a node's arguments mention, in order, with repetitions."""
        return self.arguments(node).reads

    def inputs_of(self, nodes: Sequence[fx.Node]) -> tuple[fx.Node, ...]:
        """The nodes from outside a run that it reads, in the order it first reads them."""
        inside = set(nodes)
        reads = (read for node in nodes for read in self.reads(node))
        return tuple(dict.fromkeys(read for read in reads if read not in inside))

    def call(self, node: fx.Node | Step, args: Any, kwargs: Any) -> Any:
        """Run what a node calls."""
        if node.op == "get_attr":
            return attribute_of(self.captured.module, str(node.target))
        if node.op == "call_method":
            return operator.methodcaller(str(node.target), *args[1:], **kwargs)(args[0])
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def arguments(self, node: fx.Node) -> NodeArguments:
        """A node's arguments as pieces see them, computed once."""
        known = self._resolved.get(node)
        if known is not None:
            return known
        reads: list[fx.Node] = []

        def leaf(item: Any) -> Any:
            if isinstance(item, fx.Node):
                if item not in self._values:
                    reads.append(item)
                    return item
                return _map_numbers(self._values[item], self.expression)
            if isinstance(item, _PLAIN):
                return item
            return _map_numbers(item, self.expression)

        args, kwargs = map_aggregate((node.args, node.kwargs), leaf)
        known = self._resolved[node] = NodeArguments(args, dict(kwargs), tuple(reads))
        return known

    def returned(self) -> tuple[fx.Node, ...]:
        """The nodes whose tensors the graph returns, by output number; numbers are left out."""
        (outputs,) = self.output.args
        assert isinstance(outputs, Sequence)
        return tuple(node for node in outputs if isinstance(node, fx.Node))


def _numbers_in(value: Any) -> Iterator[Any]:
    """List the numbers in a value, those of shapes and layouts of tensors included."""
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, slice):
            yield from (leaf.start, leaf.stop, leaf.step)
        elif not isinstance(leaf, torch.Tensor):
            yield leaf
        elif leaf.layout is torch.strided and not leaf.is_nested:
            yield from (*leaf.shape, *leaf.stride(), leaf.storage_offset())


def movable(nodes: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> frozenset[fx.Node]:
    """Find the inputs of a run whose storage offset does not matter.

    A compiler is given these with offset 0. The offset matters where tensors share memory, and
    where a node may count from the start of the storage.
    """
    if any(node.op == "get_attr" or names_a_place(node) for node in nodes):
        return frozenset()
    tensors = [node for node in inputs if isinstance(example_of(node), torch.Tensor)]
    sharing = Counter(storage_of(example_of(node)) for node in tensors)
    return frozenset(node for node in tensors if sharing[storage_of(example_of(node))] == 1)


def _is_number(value: Any) -> bool:
    """Tell whether a value consists of numbers only, such as a size or a `torch.Size`."""
    if isinstance(value, tuple | list):
        return bool(value or isinstance(value, torch.Size)) and all(map(_is_number, value))
    return isinstance(value, int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool)


def _map_numbers(value: Any, function: Callable[[Any], Any]) -> Any:
    if type(value) in (tuple, list, torch.Size):
        return tuple(_map_numbers(item, function) for item in value)
    return function(value)
