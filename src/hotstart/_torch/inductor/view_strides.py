"""Find the strides of a view without guards on sizes that are 1."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from hotstart._torch.in_between import in_between, with_entries

Size = int | torch.SymInt


@contextlib.contextmanager
def views_of_any_size() -> Iterator[None]:
    """Put no guard on a size where a view has the same strides for all sizes.

    A reshape of tensors with symbolic sizes compares these with each other and with 1 in C++, and
    so does Inductor's lowering of views that are not contiguous (`_compute_stride`, 2.11 to 2.15):
    a batch of 1 would get a unit of its own. Python kernels of operators (`py_kernels`, and
    `_dispatch_cache`, 2.11 to 2.15) come before those in C++ where fake tensors are computed.
    """
    from torch._subclasses import fake_impls

    with _reshape_in_python(), in_between(fake_impls, "_compute_stride", _computed):
        yield


@contextlib.contextmanager
def _reshape_in_python() -> Iterator[None]:
    """Make a reshape a view, without guards, if it is one for all sizes; in this thread."""
    reshape: Any = torch.ops.aten.reshape.default
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    kernels, thread = reshape.py_kernels, threading.get_ident()
    before = kernels.get(key, partial(reshape._op_dk, key))

    def reshaped(tensor: torch.Tensor, shape: Sequence[Size]) -> torch.Tensor:
        if threading.get_ident() == thread and _is_view(tensor, shape):
            made: torch.Tensor = torch.ops.aten.view.default(tensor, _whole(tensor.numel(), shape))
        else:
            made = before(tensor, shape)
        return made

    try:
        with with_entries(kernels, {key: reshaped}):
            reshape._dispatch_cache.clear()
            yield
    finally:
        reshape._dispatch_cache.clear()


def _is_view(tensor: torch.Tensor, shape: Sequence[Size]) -> bool:
    whole = _whole(tensor.numel(), shape)
    return view_stride(tensor.shape, tensor.stride(), whole) is not None


def _computed(
    compute: Callable[..., Any],
    shape: Sequence[Size],
    stride: Sequence[Size],
    new: Sequence[Size],
    *args: Any,
    **kwargs: Any,
) -> Any:
    found = view_stride(shape, stride, new)
    return compute(shape, stride, new, *args, **kwargs) if found is None else found


def _whole(numel: Size, shape: Sequence[Size]) -> list[Size]:
    """Replace the -1 in a shape, if there is one."""
    given = [size for size in shape if not (isinstance(size, int) and size == -1)]
    rest = numel // math.prod(given) if len(given) < len(shape) else 0
    return [rest if isinstance(size, int) and size == -1 else size for size in shape]


def view_stride(
    shape: Sequence[Size], stride: Sequence[Size], new: Sequence[Size]
) -> list[Size] | None:
    """Find the strides of a view that are right for all sizes.

    Args:
        shape: of the tensor.
        stride: of the tensor.
        new: shape of the view, with as many elements.

    Returns:
        None if there are none, or they would need a guard.
    """
    found: list[Size] = []
    left = list(new)
    for length, step in _runs(shape, stride):
        taken: Size = 1
        while not _same(taken, length):
            if not left:
                return None
            found.append(taken * step)
            taken = taken * left.pop()
    while left:
        if not _same(left.pop(), 1):
            return None
        found.append(1)
    return found[::-1]


def _runs(shape: Sequence[Size], stride: Sequence[Size]) -> list[tuple[Size, Size]]:
    """Join dimensions that lie one in the other: length and step of each run, last one first."""
    runs: list[tuple[Size, Size]] = []
    for size, step in reversed(list(zip(shape, stride, strict=True))):
        if _same(size, 1):
            continue
        if runs and _same(step, runs[-1][0] * runs[-1][1]):
            length, inner = runs.pop()
            runs.append((length * size, inner))
        else:
            runs.append((size, step))
    return runs


def _same(one: Size, other: Size) -> bool:
    """Tell whether two sizes are equal whatever the sizes of the model's inputs are."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return bool(statically_known_true(one == other))
