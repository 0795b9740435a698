"""Trace operators that take a size as a plain integer for sizes that are symbols.

`torch.linspace(0, 1, steps)` is one: its schema (2.11 to 2.15) has `int steps`, not `SymInt`, so a
call with a symbol makes a constant of it. Such an operator is a node of the graph that nothing
traced into, and runs as in eager, outside of pieces.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from hotstart._torch.in_between import in_between


def _spaced(start: Any, end: Any, steps: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
    return (steps,)


def _as_many(n: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
    return (n,)


def _real_frequencies(n: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
    return (n // 2 + 1,)


def _one_hot(indices: torch.Tensor, num_classes: Any) -> tuple[Any, ...]:
    return (*indices.shape, num_classes)


def _lower_triangle(row: Any, col: Any, offset: Any = 0, **_: Any) -> tuple[Any, ...]:
    return 2, _below(row, col, offset)


def _upper_triangle(row: Any, col: Any, offset: Any = 0, **_: Any) -> tuple[Any, ...]:
    return 2, row * col - _below(row, col, offset - 1)


def _below(row: Any, col: Any, offset: Any) -> Any:
    """Count the elements of a matrix on a diagonal and below it.

    Rows have one more each, until they have `col`; none have less than nothing.
    """

    def counted(longest: Any) -> Any:
        most = torch.sym_max(longest, 0)
        return most * (most + 1) // 2

    ends = counted(row + offset) - counted(row + offset - col)
    return ends - counted(offset) + counted(offset - col)


def _combinations(
    given: torch.Tensor, r: int = 2, with_replacement: bool = False
) -> tuple[Any, ...]:
    if not r:
        return (0,)
    n = given.shape[0]
    if with_replacement:
        n = torch.sym_max(n + r - 1, 0)
    return math.prod(n - taken for taken in range(r)) // math.factorial(r), r


def _grid(theta: torch.Tensor, size: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
    batch, _, *spatial = size
    return (batch, *spatial, len(spatial))


_SHAPES: Mapping[Any, Callable[..., tuple[Any, ...]]] = {
    torch.linspace: _spaced,
    torch.logspace: _spaced,
    torch.fft.rfftfreq: _real_frequencies,
    torch.nn.functional.one_hot: _one_hot,
    torch.tril_indices: _lower_triangle,
    torch.triu_indices: _upper_triangle,
    torch.nn.functional.affine_grid: _grid,
    torch.combinations: _combinations,
    **dict.fromkeys(
        (
            torch.hann_window,
            torch.hamming_window,
            torch.blackman_window,
            torch.bartlett_window,
            torch.kaiser_window,
            torch.fft.fftfreq,
        ),
        _as_many,
    ),
}
"""Functions with an integer for a size, each with one for the shape of its result."""

_LIKE_FIRST = (torch.combinations, torch.nn.functional.affine_grid)
"""Those whose result has the dtype of their first argument."""

_SELECTING = (torch.combinations,)
"""Those that select by a mask, which sizes decide: a trace knows no size of their result."""


def sizes_of_any_operator() -> contextlib.AbstractContextManager[None]:
    """Let a trace pass symbols to operators that take plain integers."""
    from torch._dynamo.utils import proxy_args_kwargs
    from torch._dynamo.variables.builder import wrap_fx_proxy
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    def call_function(call: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        shape_of = _SHAPES.get(self.value)
        if shape_of is None or "out" in kwargs:
            return call(self, tx, args, kwargs)
        given = [each.realize() for each in (*args, *kwargs.values())]
        if self.value not in _SELECTING and not any(map(_has_symbol, given)):
            return call(self, tx, args, kwargs)

        def called(function: Any, number: Callable[[Any], Any]) -> Any:
            values = [_value(each, number) for each in given]
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            return function(*values[: len(args)], **named)

        shape = called(shape_of, lambda symbol: symbol)
        with tx.fake_mode:
            if self.value in _LIKE_FIRST:
                kind = _value(given[0], lambda symbol: symbol)
            else:
                kind = called(self.value, _one_of_its_kind)
            made = kind.new_empty(shape)
        proxy = tx.output.create_proxy(
            "call_function", self.value, *proxy_args_kwargs(args, kwargs)
        )
        return wrap_fx_proxy(tx, proxy, example_value=made)

    return in_between(TorchInGraphFunctionVariable, "call_function", call_function)


def _has_symbol(variable: Any) -> bool:
    from torch._dynamo.variables.lists import BaseListVariable
    from torch._dynamo.variables.tensor import SymNodeVariable

    if isinstance(variable, BaseListVariable):
        return any(_has_symbol(each.realize()) for each in variable.items)
    return isinstance(variable, SymNodeVariable)


def _value(variable: Any, number: Callable[[Any], Any]) -> Any:
    """The value of a variable of Dynamo's, for an operator that runs on fake tensors."""
    from torch._dynamo.variables.lists import BaseListVariable
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

    if isinstance(variable, BaseListVariable):
        return [_value(each.realize(), number) for each in variable.items]
    if isinstance(variable, SymNodeVariable):
        return number(variable.sym_num)
    if isinstance(variable, TensorVariable):
        return variable.as_proxy().node.meta["example_value"]
    return variable.as_python_constant()


def _one_of_its_kind(symbol: torch.SymInt | torch.SymFloat) -> int | float:
    return 1 if isinstance(symbol, torch.SymInt) else 1.0


def takes_plain_sizes(node: fx.Node) -> bool:
    """Tell whether a node calls an operator with a size that its schema has as a plain integer."""
    if node.op != "call_function" or node.target not in _SHAPES:
        return False
    return node.target in _SELECTING or any(
        isinstance(each.meta.get("example_value"), torch.SymInt | torch.SymFloat)
        for each in node.all_input_nodes
    )
