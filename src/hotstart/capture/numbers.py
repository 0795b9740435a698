"""Numbers that a call computes from the contents of tensors, described as data.

Each becomes a symbol like that of an axis: shapes and arguments are expressions over both. An axis
is read from an argument, such a number from the value of a node.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import fx

from hotstart._torch.dynamo.data_numbers import (
    Unbacked,
    UnknownPlace,
    asserts_number,
    unbacked_made,
)
from hotstart._torch.dynamo.full_graph import FullGraph
from hotstart._torch.graphs.source_lines import line_of
from hotstart._torch.graphs.symbols import axis_symbol, expression, loose_symbol, python_source
from hotstart.errors import CaptureError

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class DataNumber:
    """A number that is known once a node has run.

    Attributes:
        symbol: stands for it in expressions; of the kind of an axis if it is a size.
        node: makes it.
        source: Python source that reads it from the node's value, written `{}`.
        low: the least value; None if it may be negative, or is no integer.
        high: the largest.
    """

    symbol: sympy.Symbol
    node: fx.Node
    source: str
    low: int | None
    high: int

    @property
    def name(self) -> str:
        """The name of the symbol, which no axis has."""
        return str(self.symbol)

    @property
    def is_size(self) -> bool:
        """Tell whether pieces are compiled for it as for an axis: it is an integer from 0."""
        return self.low is not None

    @property
    def is_checked(self) -> bool:
        """Tell whether only a check of the model keeps it from being negative, as with `item`."""
        return self.is_size and self.source == "{}"


@dataclass(frozen=True)
class Fact:
    """Equation of a number and an expression, which the model's checks assert.

    Attributes:
        node: makes the number.
        source: reads it, as in `DataNumber`.
        equals: what it has to be, over the symbols of axes and of other numbers.
    """

    node: fx.Node
    source: str
    equals: sympy.Expr


@dataclass(frozen=True)
class Numbers:
    """The numbers of a graph.

    Attributes:
        made: those with a symbol of their own, in the order they are made.
        facts: what holds of the others.
        symbols: the symbol that stands for each of torch's.
        unbacked: all symbols of torch's that stand for such numbers, those of facts included.
    """

    made: tuple[DataNumber, ...]
    facts: tuple[Fact, ...]
    symbols: Mapping[sympy.Symbol, sympy.Symbol]
    unbacked: frozenset[sympy.Symbol]


def find_numbers(
    traced: FullGraph,
    axes: Mapping[sympy.Symbol, sympy.Expr],
    known: Iterable[sympy.Symbol],
) -> Numbers:
    """Describe the numbers that a traced graph computes from the contents of tensors.

    Args:
        traced: what Dynamo made of a call.
        axes: what each other symbol is, over the symbols of axes.
        known: symbols that stand for nothing any more.

    Raises:
        CaptureError: a number is equal to something that is known later, or is somewhere where no
            source reads it.
    """
    names = _names({str(axis) for expr in axes.values() for axis in expr.free_symbols})
    symbols = dict(axes)
    made: list[DataNumber] = []
    facts: list[Fact] = []
    settled = set(known)
    unbacked: set[sympy.Symbol] = set()
    for node in traced.module.graph.nodes:
        for found in _made(node, traced):
            if found.symbol in settled:
                continue
            unbacked |= {found.symbol, *found.known.free_symbols} - axes.keys()
            if found.known.free_symbols <= symbols.keys():
                facts.append(Fact(node, found.source, found.known.xreplace(symbols)))
            elif found.known.is_Symbol:
                number = _number(node, found, next(names))
                symbols[found.known] = number.symbol
                made.append(number)
            else:
                raise CaptureError(
                    f"{line_of(node) or node.name}: a number that depends on the contents "
                    f"of a tensor has to be {python_source(found.known)}, which is known "
                    "later. Check the one that is made last, in terms of the others."
                )
    others = {symbol: number for symbol, number in symbols.items() if symbol not in axes}
    return Numbers(tuple(made), tuple(facts), others, frozenset(unbacked))


def checked_numbers(
    graph: fx.Graph, symbols: Mapping[sympy.Symbol, sympy.Expr]
) -> tuple[sympy.Basic, ...]:
    """List what a graph checks of numbers, over the symbols of axes and numbers.

    Checks that hold for every number of its kind are erased: the kind is checked on reading.
    """
    import sympy

    found: list[sympy.Basic] = []
    for node in list(filter(asserts_number, graph.nodes)):
        checked = node.args[0]
        value = checked.meta["example_value"] if isinstance(checked, fx.Node) else checked
        expr = expression(value).xreplace(dict(symbols))
        if expr == sympy.true:
            graph.erase_node(node)
            continue
        node.args = (checked, f"expected {python_source(expr)}, as the model needs it")
        found += [expr] if expr.free_symbols else []
    return tuple(found)


def _made(node: fx.Node, traced: FullGraph) -> Iterator[Unbacked]:
    try:
        yield from unbacked_made(node, traced.env)
    except UnknownPlace as error:
        raise CaptureError(
            f"{line_of(node) or node.name}: a number that depends on the contents of a "
            f"tensor is not the number, nor a size of a tensor, but at {error}. Call an operator "
            "that returns plain tensors."
        ) from None


def _names(taken: set[str]) -> Iterator[str]:
    return (name for n in itertools.count() if (name := f"number_{n}") not in taken)


def _number(node: fx.Node, found: Unbacked, name: str) -> DataNumber:
    low, high = found.low, found.high
    is_size = low is not None and low >= 0
    symbol = axis_symbol(name) if is_size else loose_symbol(name, found.known)
    return DataNumber(
        symbol, node, found.source, low if is_size else None, sys.maxsize if high is None else high
    )
