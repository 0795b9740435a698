"""Match `dynamic_shapes` with the arguments of an example call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hotstart.errors import OptionsError
from hotstart.records.dims import DerivedDim, Dim
from hotstart.records.nested import Attributes, Container, children
from hotstart.records.trees import flattened, opened, tensors_of

FlatDims = list[tuple[str, torch.Tensor, dict[int, DerivedDim]]]


def flat_dims(path: str, value: Any, dims: Any) -> FlatDims:
    """Match a nested `dynamic_shapes` entry with the argument it is for, child by child.

    Children of a type that is registered with pytree may also be numbered as it flattens, even
    where they are known by its attributes.

    Returns:
        For every tensor that an entry is for: its path, itself, and its dynamic dimensions.

    Raises:
        OptionsError: the entry does not fit the argument.
    """
    if dims is None:
        return []
    if isinstance(value, torch.Tensor):
        return [(path, value, _tensor_dims(path, dims))]
    container = opened(value)
    numbered = not isinstance(dims, Mapping) or all(isinstance(key, int) for key in dims)
    by_number = flattened(value) if isinstance(container, Attributes) and numbered else None
    if by_number is None:
        return _matched(path, value, container, dims)
    paths = {id(tensor): at for at, tensor in tensors_of(value, path)}
    found = _matched(path, value, by_number, dims)
    return [(paths.get(id(tensor), at), tensor, own) for at, tensor, own in found]


def _matched(path: str, value: Any, container: Container | None, dims: Any) -> FlatDims:
    inside = children(container, path)
    if isinstance(dims, Mapping):
        wanted = dict(dims)
    elif isinstance(dims, Sequence) and container is not None and len(dims) == len(inside):
        wanted = {child.key: entry for child, entry in zip(inside, dims, strict=True)}
    else:
        raise OptionsError(
            f"dynamic_shapes: {path} is a {type(value).__qualname__}, which {dims!r} does not fit"
        )
    found: FlatDims = []
    for child in inside:
        found += flat_dims(child.path, child.value, wanted.pop(child.key, None))
    if wanted:
        unknown = ", ".join(repr(key) for key in wanted)
        raise OptionsError(f"dynamic_shapes: {path} has no {unknown} in the example")
    return found


def _tensor_dims(path: str, dims: Any) -> dict[int, DerivedDim]:
    if isinstance(dims, Mapping):
        items = list(dims.items())
    elif isinstance(dims, Sequence) and not isinstance(dims, str):
        items = list(enumerate(dims))
    else:
        raise OptionsError(
            f"dynamic_shapes: {path} takes a mapping from dimension to hotstart.Dim, got {dims!r}"
        )
    wrong = [dim for dim, _ in items if isinstance(dim, bool) or not isinstance(dim, int)]
    if wrong:
        raise OptionsError(f"dynamic_shapes: {path}: got dimension {wrong[0]!r}, takes an int")
    return {dim: _derived(path, declared) for dim, declared in items if declared is not None}


def _derived(path: str, declared: Any) -> DerivedDim:
    """A dimension in terms of others; of itself where it is declared as it is."""
    if isinstance(declared, DerivedDim):
        return declared
    root, fn = (getattr(declared, name, None) for name in ("root", "fn"))
    if root is None or fn is None:
        return 1 * _as_dim(path, declared)
    plus = int(fn(0))  # torch.export's derived dimensions are of the form a * root + b
    return (int(fn(1)) - plus) * _as_dim(path, root) + plus


def _as_dim(path: str, declared: Any) -> Dim:
    if isinstance(declared, Dim):
        return declared
    name, low, high = (getattr(declared, a, None) for a in ("__name__", "min", "max"))
    if isinstance(name, str) and isinstance(low, int) and isinstance(high, int):
        # torch.export's default of 0 does not mean that anybody asks for size 0.
        return Dim(name, min=low or 1, max=high)
    if isinstance(name, str) and low is not None:
        raise OptionsError(f"{path}: torch.export.Dim {name!r} has no max; give it one")
    raise OptionsError(
        f"{path}: takes hotstart.Dim or torch.export.Dim(name, max=...), got {declared!r}"
    )
