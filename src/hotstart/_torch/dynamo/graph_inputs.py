"""Read the graph and the shape environment that Dynamo gives a backend."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from hotstart._torch.graphs.symbols import expression

if TYPE_CHECKING:
    import sympy
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

LARGEST = sys.maxsize - 1
"""The upper bound of a size for which torch knows none: one less than its own infinity."""


def traced_environment() -> ShapeEnv | None:
    """The shape environment of the trace that is under way; None outside of one.

    What is evaluated in it while a backend runs becomes a guard of the frame, as it does for
    Inductor. `TracingContext` is how torch's own backends get at it.
    """
    context = torch._guards.TracingContext.try_get()
    mode = None if context is None else context.fake_mode
    return None if mode is None else mode.shape_env


def compile_id() -> str:
    """Dynamo's name of the compile that is under way, such as `0/1`, as its own logs have it."""
    return str(torch._guards.CompileContext.current_compile_id() or "-")


def guard_on(env: ShapeEnv, condition: sympy.Basic) -> bool:
    """Evaluate a condition for the sizes at hand; the answer becomes a guard."""
    return bool(env.evaluate_expr(condition))


def bounds_of(env: ShapeEnv, symbol: sympy.Symbol) -> tuple[int, int]:
    """The least and the greatest value of a symbol, both finite."""
    known = env.var_to_range[symbol]
    low, high = (
        int(end) if end.is_Integer else fallback  # infinities are numbers of another kind
        for end, fallback in ((known.lower, -LARGEST), (known.upper, LARGEST))
    )
    return max(low, -LARGEST), min(high, LARGEST)


def hint_of(env: ShapeEnv, symbol: sympy.Symbol) -> int:
    """The value that a symbol has in the call that is traced; `var_to_val` up to 2.11."""
    values: Mapping[sympy.Symbol, Any] = (
        env.backed_var_to_val if hasattr(env, "backed_var_to_val") else env.var_to_val
    )
    return int(values[symbol])


def tuned_size(size: int | torch.SymInt) -> int:
    """A size where a range is tuned."""
    return size if isinstance(size, int) else int(size.node.hint)


def symbols_in(value: Any) -> set[sympy.Symbol]:
    """The symbols in a number, or in the shape, strides and offset of each tensor in a value."""
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            return set()
        numbers = (*value.shape, *value.stride(), value.storage_offset())
        return {symbol for number in numbers for symbol in symbols_in(number)}
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return set(expression(value).free_symbols)
    if isinstance(value, tuple | list):
        return {symbol for item in value for symbol in symbols_in(item)}
    return set()


def is_float(symbol: sympy.Symbol) -> bool:
    """Tell whether a symbol stands for a Python float."""
    from torch.utils._sympy.symbol import SymT, symbol_is_type

    return bool(symbol_is_type(symbol, SymT.FLOAT))


def make_constant(floats: Iterable[sympy.Symbol]) -> None:
    """Start the trace again with these Python floats as constants, and guards on their values.

    This is how Inductor's pass over Python scalars treats floats that it cannot put into tensors.
    """
    from torch._dynamo.exc import TensorifyScalarRestartAnalysis
    from torch._dynamo.symbolic_convert import TensorifyState

    for symbol in floats:
        TensorifyState.specialize(str(symbol))
    raise TensorifyScalarRestartAnalysis
