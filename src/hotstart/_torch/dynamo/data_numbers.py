"""Numbers that a graph computes from the contents of tensors: torch's unbacked symbols."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    import sympy
    from torch.fx.experimental.symbolic_shapes import ShapeEnv


@dataclass(frozen=True)
class Unbacked:
    """A number that a node makes, known in a call only.

    Attributes:
        symbol: torch's symbol of it.
        known: its value in the trace: the symbol, or the expression that a check made it equal to.
        source: Python source that reads it from the node's value, written `{}`.
        low: the least value; None without bound, and for floating-point numbers.
        high: the largest, likewise.
    """

    symbol: sympy.Symbol
    known: sympy.Expr
    source: str
    low: int | None
    high: int | None


class UnknownPlace(Exception):
    """A number in a place of a node's value that no source can read."""


def unbacked_made(node: fx.Node, env: ShapeEnv) -> Iterator[Unbacked]:
    """List the numbers that a node makes.

    Dynamo notes in `unbacked_bindings` where in the value of a node they are (2.11 to 2.15).

    Raises:
        UnknownPlace: one is somewhere where no source reads it.
    """
    for symbol, path in (node.meta.get("unbacked_bindings") or {}).items():
        known: Any = env.replace(symbol)
        low, high = _range(known if known.is_Symbol else symbol, env)
        yield Unbacked(symbol, known, _source(path), low, high)


def _range(symbol: sympy.Symbol, env: ShapeEnv) -> tuple[int | None, int | None]:
    if not symbol.is_integer:
        return None, None
    bounds = env.var_to_range.get(symbol)
    ends = (None, None) if bounds is None else (bounds.lower, bounds.upper)
    low, high = (int(end) if end is not None and end.is_Integer else None for end in ends)
    return low, None if high is not None and high >= sys.maxsize else high


def _source(path: tuple[Any, ...]) -> str:
    """Write source that reads a number from a value, along a path of torch's keys."""
    source, method = "{}", ""
    for key in path:
        kind = type(key).__name__
        if kind == "CallMethodKey" and key.name in ("size", "stride", "storage_offset"):
            method = f".{key.name}({{}})"
            if key.name == "storage_offset":
                source, method = f"{source}.storage_offset()", ""
        elif kind == "SequenceKey":
            source, method = source + (method or "[{}]").format(key.idx), ""
        elif kind == "ConvertIntKey":
            source = f"int({source})"
        else:
            raise UnknownPlace(str(key))
    return source


def asserts_number(node: fx.Node) -> bool:
    """Tell whether a node only asserts a condition on a number."""
    return getattr(node.target, "__name__", "") == "_assert_scalar.default"


def assertion_of_number() -> Any:
    """The operator of such nodes; it takes a bool and a message."""
    return torch.ops.aten._assert_scalar.default


def bounds_number(node: fx.Node) -> bool:
    """Tell whether a node tells a trace the range of a number, which `asserts_number` checks."""
    return str(getattr(node.target, "__name__", "")).startswith("sym_constrain_range")


def known_contents(tensor: torch.Tensor) -> Any:
    """The number in a fake tensor of one element, as `tolist` gives it; None unless it is known.

    Fake tensors computed from constants have a `constant` (2.11 to 2.15) until they are written to.
    """
    constant = getattr(tensor, "constant", None)
    return None if constant is None or constant.numel() != 1 else constant.tolist()


def depends_on_data(expr: sympy.Basic, known: Collection[sympy.Symbol]) -> bool:
    """Tell whether an expression has numbers of data besides those that are known.

    A call of one operator makes such numbers, which no node has: `x[n : n + 3] = y` takes a part of
    `x` first, and checks its size against that of `y`. It does so in every call.
    """
    from torch.utils._sympy.symbol import SymT, symbol_is_type

    return any(
        symbol not in known and symbol_is_type(symbol, (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT))
        for symbol in expr.free_symbols
    )
