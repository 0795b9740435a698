"""Decide branches on tensors of one element that depend on sizes and constants alone.

`length <= max_pad` is one, where a padding is computed with tensors. The value of such a tensor is
a function of sizes. It is computed for the sizes of the trace, to decide the branch, and for all
other sizes, so that those at which the branch is taken become a condition on an axis.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.dynamo.data_numbers import known_contents
from hotstart._torch.dynamo.graph_inputs import hint_of
from hotstart._torch.graphs.nodes import short_name
from hotstart._torch.graphs.source_lines import user_line
from hotstart._torch.graphs.symbols import Condition, as_function, expression

if TYPE_CHECKING:
    import sympy

_MOST_SIZES = 1 << 13
"""Most sizes of an axis for which values are computed."""

_MOST_INTERVALS = 3
"""Most intervals of an axis at which a branch may be taken; else it stays undecided."""


_COMPUTE = frozenset({
    "tensor", "scalar_tensor", "as_tensor", "to", "int", "long", "float", "double", "item",
    "neg", "abs", "ceil", "floor", "round", "trunc", "sqrt", "add", "sub", "rsub", "mul", "pow",
    "truediv", "div", "true_divide", "divide", "floordiv", "floor_divide", "mod", "remainder",
    "fmod", "getitem", "maximum", "minimum", "max", "min", "clamp", "eq", "ne", "lt", "le", "gt",
    "ge",
    "and_", "or_", "not_", "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or",
})  # fmt: skip
"""Names of deterministic operators without side effects."""


class _Unknown(Exception):
    """A value is no function of sizes."""


class SizeDecisions:
    """Decides branches of a trace by sizes.

    Attributes:
        conditions: what was decided, over torch's symbols.
    """

    def __init__(self) -> None:
        self.conditions: list[Condition] = []
        self._computed: dict[tuple[sympy.Symbol, int], dict[fx.Node, Any]] = {}
        self._functions: dict[Any, tuple[list[sympy.Symbol], Callable[..., Any]]] = {}

    def decide(self, tx: Any, value: Any) -> bool | None:
        """Decide a condition; None if it is no function of one axis with few sizes."""
        from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable
        from torch.utils._python_dispatch import _disable_current_modes

        value = value.realize()
        if not isinstance(value, SymNodeVariable | TensorVariable):
            return None
        node, env = value.as_proxy().node, tx.output.shape_env
        symbols = self._symbols(node)
        if symbols is None or len(symbols) != 1:
            return None
        (symbol,) = symbols
        bounds = env.var_to_range[symbol]
        if not bounds.upper.is_Integer or bounds.upper - bounds.lower >= _MOST_SIZES:
            return None
        sizes = range(int(bounds.lower), int(bounds.upper) + 1)
        with _disable_current_modes():
            try:
                taken = self._truth(node, symbol, hint_of(env, symbol))
                alike = [size for size in sizes if self._truth(node, symbol, size) == taken]
            except _Unknown:
                return None
        condition = _within(symbol, alike, sizes)
        if condition is None:
            return None
        from torch._guards import TracingContext

        line = user_line(list(TracingContext.extract_stack()))
        self.conditions.append(Condition(condition, line))
        return taken

    def _symbols(self, node: fx.Node) -> set[sympy.Symbol] | None:
        """The symbols of axes that a node follows from; None if it follows from contents, too."""
        found: set[sympy.Symbol] = set()
        seen: set[fx.Node] = set()
        waiting = [node]
        while waiting:
            each = waiting.pop()
            if each in seen:
                continue
            seen.add(each)
            example = each.meta.get("example_value")
            if isinstance(example, torch.Tensor):
                if known_contents(example) is not None:
                    continue
                if example.dim() or example._version or short_name(each) not in _COMPUTE:
                    return None
                waiting += each.all_input_nodes
                continue
            for symbol in _symbols_in(example):
                if not _is_of_data(symbol):
                    found.add(symbol)
                    continue
                maker = _maker(each.graph, symbol)
                if maker is None:
                    return None
                waiting.append(maker)
        return found

    def _truth(self, node: fx.Node, symbol: sympy.Symbol, size: int) -> bool:
        return bool(self._value(node, symbol, size))

    def _value(self, node: fx.Node, symbol: sympy.Symbol, size: int) -> Any:
        """Run a node at a size of an axis.

        Raises:
            _Unknown: an operator raises there.
        """
        computed = self._computed.setdefault((symbol, size), {})
        if node not in computed:
            example = node.meta["example_value"]
            if not isinstance(example, torch.Tensor):
                computed[node] = self._number(node.graph, example, symbol, size)
            elif (known := known_contents(example)) is not None:
                computed[node] = torch.tensor(known, dtype=example.dtype)
            else:
                computed[node] = self._called(node, symbol, size)
        return computed[node]

    def _called(self, node: fx.Node, symbol: sympy.Symbol, size: int) -> Any:
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda n: self._value(n, symbol, size)
        )
        try:
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            assert callable(node.target)
            return node.target(*args, **kwargs)
        except Exception as error:
            raise _Unknown from error

    def _number(self, graph: fx.Graph, example: Any, symbol: sympy.Symbol, size: int) -> Any:
        """A number, or a tuple of numbers, at a size of an axis."""
        if isinstance(example, tuple | list):
            return type(example)(self._number(graph, each, symbol, size) for each in example)
        if not isinstance(example, torch.SymInt | torch.SymFloat | torch.SymBool):
            return example
        expr = expression(example)
        if expr not in self._functions:
            involved = sorted(expr.free_symbols, key=str)
            self._functions[expr] = involved, as_function(expr, involved)
        involved, function = self._functions[expr]
        values = []
        for each in involved:
            if each == symbol:
                values.append(size)
                continue
            maker = _maker(graph, each)
            if maker is None:
                raise _Unknown
            values.append(self._value(maker.all_input_nodes[0], symbol, size).item())
        return function(*values)


def _is_of_data(symbol: sympy.Symbol) -> bool:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(symbol))


def index_by_known_numbers(graph: fx.Graph) -> None:
    """Have a graph index by numbers where it does by tensors of one that are known.

    A tensor of no dimensions as an index is read by `item`, like a number. Nodes left without a
    reader are erased.
    """
    for node in graph.find_nodes(op="call_function", target=operator.getitem):
        base, index = node.args
        if isinstance(base, fx.Node) and isinstance(base.meta.get("example_value"), torch.Tensor):
            node.args = (base, fx.node.map_arg(index, _number_or_node))
    for node in reversed(graph.nodes):
        computes = node.op == "call_function" and short_name(node) in _COMPUTE
        if computes and not node.users and _known_at(node) is not None:
            graph.erase_node(node)


def _number_or_node(node: fx.Node) -> Any:
    known = _known_at(node)
    return known if type(known) is int and node.meta["example_value"].dim() == 0 else node


def _known_at(node: fx.Node) -> Any:
    example = node.meta.get("example_value")
    return known_contents(example) if isinstance(example, torch.Tensor) else None


def _symbols_in(example: Any) -> set[sympy.Symbol]:
    """The symbols in a number, or in a tuple of numbers."""
    if isinstance(example, tuple | list):
        return set().union(*map(_symbols_in, example))
    if isinstance(example, torch.SymInt | torch.SymFloat | torch.SymBool):
        return set(expression(example).free_symbols)
    return set()


def _maker(graph: fx.Graph, symbol: sympy.Symbol) -> fx.Node | None:
    """The node that reads a number of a tensor of one element by `item`; None for other numbers."""
    items = graph.find_nodes(op="call_method", target="item")
    return next((n for n in items if symbol in (n.meta.get("unbacked_bindings") or ())), None)


def _within(symbol: sympy.Symbol, alike: list[int], sizes: range) -> sympy.Basic | None:
    """The condition that a size is one of some; None if these are in many intervals."""
    import sympy

    if len(alike) == len(sizes):
        return sympy.true
    groups = itertools.groupby(enumerate(alike), lambda pair: pair[1] - pair[0])
    runs = [[size for _, size in group] for _, group in groups]
    if len(runs) > _MOST_INTERVALS:
        return None
    return sympy.Or(*(sympy.And(symbol >= run[0], symbol <= run[-1]) for run in runs))
