"""Values that `artifact.values` encoded, read back. Imports no torch."""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Mapping
from typing import Any

from hotstart.errors import ArtifactError
from hotstart.records.classes import FindClass
from hotstart.records.groups import GroupSlot

OfTorch = Callable[[str, Any], Any]
"""Makes a value of torch's, given its kind (`"torch"`, `"device"`, `"size"` or `"tensor"`) and its
name, or its sizes."""

_OF_TORCH = frozenset({"torch", "device", "tensor"})
_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "complex": complex,
    "bytes": base64.b64decode,
    "ellipsis": lambda _: ...,
    "group": GroupSlot,
}
_SEQUENCES: Mapping[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "slice": lambda parts: slice(*parts),
    "range": lambda parts: range(*parts),
}


def decoded(data: Any, of_torch: OfTorch, find: FindClass) -> Any:
    """Read a value back.

    Args:
        data: what `encode` made of it.
        of_torch: makes values of torch's.
        find: finds classes by path.

    Raises:
        ArtifactError: a class is not where it was, or the description is none.
    """
    if not isinstance(data, dict):
        return data
    try:
        ((kind, content),) = data.items()
        if kind in _OF_TORCH:
            return of_torch(kind, content)
        if kind in _SCALARS:
            return _SCALARS[kind](content)
        if kind == "class":
            return find(content)
        if kind == "dict":
            pairs = ([decoded(each, of_torch, find) for each in pair] for pair in content)
            return dict(pairs)
        if kind in _SEQUENCES or kind == "size":
            parts = [decoded(item, of_torch, find) for item in content]
            return of_torch(kind, parts) if kind == "size" else _SEQUENCES[kind](parts)
        path, *parts = content
        cls: Any = find(path)
        if kind == "enum":
            (plain,) = parts
            return cls(plain) if issubclass(cls, enum.Flag) else getattr(cls, plain)
        if kind == "namedtuple":
            return cls(*(decoded(item, of_torch, find) for item in parts))
        if kind == "dataclass":
            return cls(**{name: decoded(item, of_torch, find) for name, item in parts})
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ArtifactError(f"a value cannot be read back from {data!r:.200}: {error}") from error
    raise ArtifactError(f"a value cannot be read back: unknown kind {kind!r}")
