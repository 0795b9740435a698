"""Trace operators that take a size as a plain integer for sizes that are symbols.

`torch.linspace(0, 1, steps)` is one: its schema (2.11 to 2.15) has `int steps`, not `SymInt`, so a
call with a symbol makes a constant of it. Such an operator is a node of the graph that nothing
traced into, and runs as in eager, outside of pieces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from hotstart._torch.in_between import in_between


def _spaced(start: Any, end: Any, steps: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
    return (steps,)


def _window(window_length: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
    return (window_length,)


def _one_hot(indices: torch.Tensor, num_classes: Any) -> tuple[Any, ...]:
    return (*indices.shape, num_classes)


_SHAPES: Mapping[Any, Callable[..., tuple[Any, ...]]] = {
    torch.linspace: _spaced,
    torch.logspace: _spaced,
    torch.nn.functional.one_hot: _one_hot,
    **dict.fromkeys(
        (torch.hann_window, torch.hamming_window, torch.blackman_window, torch.bartlett_window),
        _window,
    ),
}
"""Functions with an integer for a size, each with one for the shape of its result."""


def sizes_of_any_operator() -> contextlib.AbstractContextManager[None]:
    """Let a trace pass symbols to operators that take plain integers."""
    from torch._dynamo.utils import proxy_args_kwargs
    from torch._dynamo.variables.builder import wrap_fx_proxy
    from torch._dynamo.variables.tensor import SymNodeVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    def call_function(call: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        shape_of = _SHAPES.get(self.value)
        if shape_of is None or "out" in kwargs:
            return call(self, tx, args, kwargs)
        given = [each.realize() for each in (*args, *kwargs.values())]
        if not any(isinstance(each, SymNodeVariable) for each in given):
            return call(self, tx, args, kwargs)

        def called(function: Any, number: Callable[[Any], Any]) -> Any:
            values = [_value(each, number) for each in given]
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            return function(*values[: len(args)], **named)

        shape = called(shape_of, lambda symbol: symbol)
        with tx.fake_mode:
            made = called(self.value, _one_of_its_kind).new_empty(shape)
        proxy = tx.output.create_proxy(
            "call_function", self.value, *proxy_args_kwargs(args, kwargs)
        )
        return wrap_fx_proxy(tx, proxy, example_value=made)

    return in_between(TorchInGraphFunctionVariable, "call_function", call_function)


def _value(variable: Any, number: Callable[[Any], Any]) -> Any:
    """The value of a variable of Dynamo's, for an operator that runs on fake tensors."""
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

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
    return any(
        isinstance(each.meta.get("example_value"), torch.SymInt | torch.SymFloat)
        for each in node.all_input_nodes
    )
