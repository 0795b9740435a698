"""Trace operators that take a size as a plain integer for sizes that are symbols.

`torch.linspace(0, 1, steps)` is one: its schema (2.11 to 2.15) has `int steps`, not `SymInt`, so a
call with a symbol makes a constant of it. Such an operator is a node of the graph that nothing
traced into, and runs as in eager, outside of pieces.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
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


def _wave(
    input: torch.Tensor,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> tuple[Any, ...] | None:
    """Compute the shape of what `istft` gives; None for its own length and complex numbers."""
    return None if length is None or return_complex else (*input.shape[:-2], length)


def _pooled(rank: int) -> Callable[..., tuple[Any, ...]]:
    """Compute the shape that pooling over the last `rank` dimensions gives."""

    def each(value: Any) -> list[Any]:
        values = list(value) if isinstance(value, list | tuple) else [value]
        return values * rank if len(values) == 1 else values

    def shape(
        given: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
    ) -> tuple[Any, ...]:
        kernel = each(kernel)
        steps = each(stride) if stride else kernel  # None, or no numbers: the kernel's size
        windows = zip(
            given.shape[-rank:], kernel, steps, each(padding), each(dilation), strict=True
        )
        return *given.shape[:-rank], *(_windows(*window, ceil) for window in windows)

    return shape


def _windows(size: Any, kernel: Any, step: Any, padding: Any, dilation: Any, ceil: bool) -> Any:
    """Count the windows along a dimension; with `ceil`, the last may end beyond it."""
    rest = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return rest // step + 1
    return torch.sym_min((rest + step - 1) // step, (size + padding - 1) // step) + 1


def _max_pooled(rank: int) -> Callable[..., tuple[Any, ...] | None]:
    shape = _pooled(rank)

    def of_call(
        input: torch.Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> tuple[Any, ...] | None:
        if return_indices:  # two results
            return None
        return shape(input, kernel_size, stride, padding, dilation, ceil_mode)

    return of_call


def _mean_pooled(rank: int) -> Callable[..., tuple[Any, ...]]:
    shape = _pooled(rank)

    def of_call(
        input: torch.Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> tuple[Any, ...]:
        return shape(input, kernel_size, stride, padding, 1, ceil_mode)

    return of_call


_POOLS: Mapping[Any, Callable[..., tuple[Any, ...] | None]] = {
    torch.nn.functional.max_pool1d: _max_pooled(1),
    torch.nn.functional.max_pool2d: _max_pooled(2),
    torch.nn.functional.max_pool3d: _max_pooled(3),
    torch.nn.functional.avg_pool1d: _mean_pooled(1),
    torch.nn.functional.avg_pool2d: _mean_pooled(2),
    torch.nn.functional.avg_pool3d: _mean_pooled(3),
}
"""Those whose windows may be as large as what they are given: `max_pool1d(x, x.shape[2])`."""

_SHAPES: Mapping[Any, Callable[..., tuple[Any, ...] | None]] = {
    **_POOLS,
    torch.istft: _wave,
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
"""Functions with an integer for a size, each with one for the shape of its result.

None is for a call that is traced as any other.
"""

_LIKE_FIRST = (torch.combinations, torch.nn.functional.affine_grid)
"""Those whose result has the dtype of their first argument."""

_REAL_OF_FIRST = (torch.istft,)
"""Those whose result has the dtype of the real part of their first argument."""

_SELECTING = (torch.combinations,)
"""Those that select by a mask, which sizes decide: a trace knows no size of their result."""


def sizes_of_any_operator() -> contextlib.AbstractContextManager[None]:
    """Let a trace pass symbols to operators that take plain integers."""
    from torch._dispatch.python import enable_python_dispatcher
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
        if shape is None:
            return call(self, tx, args, kwargs)
        with tx.fake_mode, enable_python_dispatcher():  # as Dynamo calls operators
            if self.value in _LIKE_FIRST or self.value in _POOLS:
                kind = _first_tensor(given)
            elif self.value in _REAL_OF_FIRST:
                kind = _first_tensor(given).abs()
            else:
                kind = called(self.value, _one_of_its_kind)
            if self.value in _POOLS and (last := _channels_last(kind)):
                made = torch.empty(shape, dtype=kind.dtype, memory_format=last)
            else:
                made = kind.new_empty(shape)
        proxy = tx.output.create_proxy(
            "call_function", self.value, *proxy_args_kwargs(args, kwargs)
        )
        return wrap_fx_proxy(tx, proxy, example_value=made)

    return in_between(TorchInGraphFunctionVariable, "call_function", call_function)


def _first_tensor(given: Sequence[Any]) -> torch.Tensor:
    """The fake tensor behind the first of Dynamo's variables that is a tensor."""
    from torch._dynamo.variables.tensor import TensorVariable

    first = next(each for each in given if isinstance(each, TensorVariable))
    example: torch.Tensor = first.as_proxy().node.meta["example_value"]
    return example


def _channels_last(images: torch.Tensor) -> torch.memory_format | None:
    """The memory format of images whose channels are last; None for others."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(images.ndim)
    # Of contiguous ones it is the product of sizes, of which some are symbols.
    apart = images.stride(1) if last else None
    return last if type(apart) is int and apart == 1 else None


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
    given = [each.meta.get("example_value") for each in node.all_input_nodes]
    sizes = (size for each in given for size in (each if isinstance(each, tuple) else (each,)))
    return node.target in _SELECTING or any(
        isinstance(size, torch.SymInt | torch.SymFloat) for size in sizes
    )
