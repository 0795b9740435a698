"""Values of captured graphs: numbers, expressions, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.graphs.symbols import python_source

if TYPE_CHECKING:
    import sympy


def unbacked_in(value: Any) -> set[sympy.Symbol]:
    """The symbols of numbers that depend on contents of tensors, in a number or a tensor's shape.

    Of anything else than a number, a tensor or an expression there are none.
    """
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return set(free_unbacked_symbols(value)) if _has_symbols(value) else set()


def mentions(value: Any, symbols: frozenset[sympy.Symbol]) -> bool:
    """Tell whether a number, a tensor's shape or an expression mentions any of some symbols."""
    from torch.fx.experimental.symbolic_shapes import free_symbols

    return _has_symbols(value) and bool(symbols & free_symbols(value))


def _has_symbols(value: Any) -> bool:
    import sympy

    known = torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool | sympy.Basic
    return isinstance(value, known)


def plain_number(expr: sympy.Basic) -> int | float | bool:
    """The Python number a constant expression is."""
    import sympy

    if expr in (sympy.true, sympy.false):
        return bool(expr)
    return int(expr) if expr.is_integer else float(expr)


def evaluate(expr: sympy.Basic, values: Mapping[sympy.Symbol, Any]) -> Any:
    """Compute an expression with proxies or sizes in place of its symbols."""
    names = {str(symbol): value for symbol, value in values.items()}
    functions = {"max": torch.sym_max, "min": torch.sym_min, "float": torch.sym_float}
    return eval(python_source(expr), {"math": _TracedMath(), "torch": torch, **functions, **names})


class _TracedMath:
    """The `math` module for proxies, of which its functions want a real number."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(torch, f"_sym_{name}", getattr(math, name))

        def call(*args: Any) -> Any:
            proxy = next((arg for arg in args if isinstance(arg, fx.Proxy)), None)
            if proxy is None:
                return function(*args)
            return proxy.tracer.create_proxy("call_function", function, args, {})

        return call


def storage_of(tensor: torch.Tensor) -> int:
    """A number that two tensors share exactly if they share memory."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    address: int = tensor.untyped_storage()._cdata
    return address


def like_in_format(tensor: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    """Make a fake tensor like another one, on memory of its own, in a memory format."""
    order = list(range(tensor.ndim))
    if memory_format is not torch.contiguous_format:
        order = [0, *order[2:], 1]
    strides: list[int | torch.SymInt] = [1] * tensor.ndim
    for outer, inner in zip(order[-2::-1], order[:0:-1], strict=True):
        strides[outer] = strides[inner] * tensor.shape[inner]
    with torch.no_grad():
        return tensor.new_empty_strided(tensor.shape, strides)
