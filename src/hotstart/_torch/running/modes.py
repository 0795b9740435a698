"""Regions and modes that operators run in: autocast, gradients, modes of Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import _ops, overrides
from torch.overrides import TorchFunctionMode

from hotstart._torch.running.around import around_operators
from hotstart.dtypes import dtype_of, name_of


def autocast_check() -> Callable[[], bool]:
    """A function that tells whether any kind of autocast is on, in one C call."""
    return torch._C._is_any_autocast_enabled


def function_mode_count() -> Callable[[], int]:
    """A function that counts modes of functions, in one C call; a default device is one.

    `torch.get_default_device` takes microseconds. `_len_torch_function_stack` (2.11 to 2.15) is
    what it would ask first.
    """
    return torch._C._len_torch_function_stack


def set_grad_enabled() -> Callable[[bool], None]:
    """The C function behind `torch.set_grad_enabled`, which is a class and five times slower."""
    return torch._C._set_grad_enabled


def autocast_state() -> tuple[tuple[str, str], ...]:
    """The device types autocast is on for, with the name of the dtype each casts to."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple(
        (kind, name_of(torch.get_autocast_dtype(kind)))
        for kind in ("cpu", "cuda", "xpu", "hpu", "xla", "mtia", "ipu", "privateuseone")
        if torch.is_autocast_enabled(kind)
    )


@contextlib.contextmanager
def autocast_regions(state: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Be in the regions of autocast that `autocast_state` told of, and in no others."""
    wanted = dict(state)
    with contextlib.ExitStack() as stack:
        for kind, _ in autocast_state():
            if kind not in wanted:
                stack.enter_context(torch.autocast(kind, enabled=False))
        for kind, dtype in wanted.items():
            stack.enter_context(torch.autocast(kind, dtype_of(dtype)))
        yield


@contextlib.contextmanager
def left_transforms() -> Iterator[None]:
    """Leave the functional transforms that are entered, as where an error keeps them from ending.

    `torch._C._functorch` (2.11 to 2.15) counts them for each thread.
    """
    functorch: Any = torch._C._functorch
    before = functorch.get_dynamic_layer_stack_depth()
    try:
        yield
    finally:
        if functorch.get_dynamic_layer_stack_depth() > before:
            functorch.pop_dynamic_layer_stack_and_undo_to_depth(before)


def without_assertions() -> contextlib.AbstractContextManager[Any]:
    """Have operators not assert anything about tensors' contents, in this thread."""

    def unasserted(func: Any, args: Any, kwargs: Any) -> Any:
        if getattr(func, "overloadpacket", None) is torch.ops.aten._assert_async:
            return None
        return func(*args, **kwargs)

    return around_operators(unasserted)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Run operators as in a call: without autograd, and outside of the modes this thread is in.

    Autocast is what it is around; a region that code enters and does not leave, since it raises,
    is left.
    """
    autocast = torch.autocast(
        "cpu", dtype=torch.get_autocast_dtype("cpu"), enabled=torch.is_autocast_enabled("cpu")
    )
    with torch.no_grad(), _without_modes(), autocast:
        yield


def _without_modes() -> contextlib.AbstractContextManager[Any]:
    """Take a tracer's modes off for a while, by `_disable_current_modes` (2.11 to 2.15).

    That imports three tracers, in milliseconds of a load, so it is for threads that are in a mode,
    as `_len_torch_dispatch_stack` and its sibling for what comes before (2.11 to 2.15) tell.
    """
    count = torch._C._len_torch_dispatch_stack() + _ops._len_torch_dispatch_stack_pre_dispatch()
    if not count:
        return contextlib.nullcontext()
    from torch.utils._python_dispatch import _disable_current_modes

    return _disable_current_modes()


@contextlib.contextmanager
def function_mode(mode: TorchFunctionMode) -> Iterator[None]:
    """Enter a mode that code inside may take off, as Dynamo's bytecode does with all there are.

    `_get_current_function_mode_stack` (2.11 to 2.15) tells whether it was taken off.
    """
    mode.__enter__()
    try:
        yield
    finally:
        if mode in overrides._get_current_function_mode_stack():
            mode.__exit__(None, None, None)
