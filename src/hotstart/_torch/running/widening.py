"""Run operators in float64, as the reference that rounding errors are measured against."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.utils._pytree as pytree

from hotstart._torch.running.around import around_operators

_NARROW = frozenset({torch.float32, torch.bfloat16, torch.float16})


def in_float64() -> contextlib.AbstractContextManager[Any]:
    """Have operators of this thread compute in float64 whatever is narrower.

    Dtypes among an operator's arguments become float64, and so do tensors, but those it writes to.
    """

    def widened(func: Any, args: Any, kwargs: Any) -> Any:
        written = _written(func, args, kwargs)
        args, kwargs = pytree.tree_map(lambda value: _widened(value, written), (args, kwargs))
        return func(*args, **kwargs)

    return around_operators(widened)


def _written(func: Any, args: Any, kwargs: Any) -> set[int]:
    """The identities of the tensors that an operator writes to."""
    if not isinstance(func, torch._ops.OpOverload):
        return set()
    names = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    by_name = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    return {id(t) for name in names for t in pytree.tree_leaves(by_name.get(name))}


def _widened(value: Any, written: set[int]) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in _NARROW and id(value) not in written:
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value in _NARROW else value
