"""Say what memory holds that nothing was written to, so that two runs can be compared."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from hotstart._torch.running.around import around_operators

_UNWRITTEN = re.compile(r"(?:aten|prims)::(?:_?empty|new_empty)(?:_|\.|$)")
Fill = Literal["zero", "junk"]
_FILLS: tuple[Fill, ...] = ("zero", "junk")
_GROWS = re.compile(r"(?:aten|inductor)::_?resize(?:_|_as_|_output_|_storage_bytes_)$")


@contextlib.contextmanager
def filled_memory(value: int = 0) -> Iterator[None]:
    """Have memory that nothing was written to hold a number: zero everywhere, or another one.

    Zero reaches all CPU memory that torch allocates, in every thread: by operators, in C++, by
    generated code. Any other number reaches what operators return that this thread calls, and not
    what operators allocate inside: elements that differ between two runs with different numbers
    depend on memory that nothing was written to.

    Args:
        value: a number that every dtype has; an index made of it has to be in range.
    """
    allocator = _allocator()
    by_operator = value != 0 or not allocator.can_zero
    with allocator.filling("zero"), _filling(value) if by_operator else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def junk_memory() -> Iterator[None]:
    """Have CPU memory that nothing was written to hold junk: nan as floats, large as integers.

    Code that reads such memory shows, whatever the memory held before. Nothing where this build of
    torch cannot, or while memory is being zeroed.
    """
    with _allocator().filling("junk"):
        yield


class _Allocator:
    """The allocator of torch's CPU tensors, which fills what it gives out while it is told to.

    `FLAGS_caffe2_cpu_allocator_do_zero_fill` and `..._do_junk_fill` (2.11 to 2.15) are variables of
    libc10's that its CPU allocator reads in every allocation; no Python name sets them. Nothing
    else sees what operators and Inductor's code allocate past the dispatcher.
    """

    def __init__(self) -> None:
        self._flags = {fill: _flag(f"FLAGS_caffe2_cpu_allocator_do_{fill}_fill") for fill in _FILLS}
        self._lock = threading.Lock()
        self._wanted = dict.fromkeys(_FILLS, 0)

    @property
    def can_zero(self) -> bool:
        """Tell whether this build of torch has the flag."""
        return self._flags["zero"] is not None

    @contextlib.contextmanager
    def filling(self, fill: Fill) -> Iterator[None]:
        """Fill memory, as long as anybody wants it to be."""
        self._want(fill, 1)
        try:
            yield
        finally:
            self._want(fill, -1)

    def _want(self, fill: Fill, more: int) -> None:
        """Count who wants a fill, and set the first one that is wanted: the allocator takes one."""
        with self._lock:
            self._wanted[fill] += more
            chosen = next((one for one in _FILLS if self._wanted[one]), None)
            for other in sorted(_FILLS, key=lambda one: one == chosen):
                flag = self._flags[other]
                if flag is not None:
                    flag.value = other == chosen


def _flag(name: str) -> ctypes.c_bool | None:
    for file in sorted(Path(torch.__file__).with_name("lib").glob("*c10.*")):
        with contextlib.suppress(OSError, ValueError):
            return ctypes.c_bool.in_dll(ctypes.CDLL(str(file)), name)
    return None


@functools.cache
def _allocator() -> _Allocator:
    """The one there is: its flag holds for the whole process."""
    return _Allocator()


def _filling(value: int) -> contextlib.AbstractContextManager[Any]:
    """Fill what operators return unwritten, in this thread."""

    def filled(func: Any, args: Any, kwargs: Any) -> Any:
        name = func.name() if isinstance(func, torch._ops.OpOverload) else ""
        if _GROWS.match(name):
            return _resized(func, args, kwargs, value)
        made = func(*args, **kwargs)
        if _UNWRITTEN.match(name) and isinstance(made, torch.Tensor):
            made.fill_(value)
        return made

    return around_operators(filled)


def _resized(func: Any, args: Any, kwargs: Any, value: int) -> Any:
    """Call an operator that resizes its first argument, and fill what that adds to its memory."""
    (tensor, *_) = args
    before = tensor.untyped_storage().nbytes() // tensor.itemsize
    result = func(*args, **kwargs)
    after = tensor.untyped_storage().nbytes() // tensor.itemsize
    if after > before:
        tensor.detach().as_strided((after - before,), (1,), before).fill_(value)
    return result
