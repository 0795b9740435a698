"""Read and make tensors of classes that say what they are made of.

`__tensor_flatten__` and `__tensor_unflatten__` are the protocol of torch's own compilers: a tensor
of a subclass names the attributes that keep its inner tensors, and a context of everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def inner_names(tensor: Any) -> tuple[str, ...]:
    """List the attributes that keep the inner tensors of a subclass; none of anything else."""
    kind = type(tensor)
    if kind in _PLAIN or not isinstance(tensor, torch.Tensor) or tensor.is_nested:
        return ()
    if not hasattr(kind, "__tensor_flatten__") or not hasattr(kind, "__tensor_unflatten__"):
        return ()
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return tuple(map(str, names))


def context_of(tensor: torch.Tensor) -> Any:
    """Return what a tensor of a subclass says that it is besides its inner tensors."""
    _, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return context


def put_together(like: torch.Tensor, inner: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Make a tensor of the subclass of another, with its context, of other inner tensors."""
    made: torch.Tensor = type(like).__tensor_unflatten__(  # type: ignore[attr-defined]
        dict(inner), context_of(like), like.size(), like.stride()
    )
    return made
