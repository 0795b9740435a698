"""Python values as JSON, exactly, and back. No pickle: what is not listed here is refused.

JSON says None, booleans, strings and integers of 64 bits by themselves. Everything else is an
object with one key that names its kind: `{"tuple": [1, {"float": "0.5"}]}`.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import torch

from hotstart.artifact.decoded import decoded
from hotstart.errors import ArtifactError
from hotstart.records.classes import FindClass, class_path, find_class
from hotstart.records.groups import GroupSlot
from hotstart.records.nested import is_namedtuple

_LARGEST = 2**63 - 1
_TORCH = (torch.dtype, torch.layout, torch.memory_format, torch.qscheme)


def _of_torch(name: str) -> Any:
    found = getattr(torch, name)
    if not isinstance(found, _TORCH):
        raise TypeError(f"torch.{name} is no dtype, layout or memory format")
    return found


def encode(value: Any, keep: Callable[[torch.Tensor], str]) -> Any:
    """A value in the types of JSON.

    Args:
        value: a constant, or containers of constants and tensors.
        keep: keeps a tensor and gives the name to find it by.

    Raises:
        ArtifactError: a value of a type that cannot be told exactly.
    """
    cls = type(value)
    if value is None or cls in (bool, str) or (cls is int and abs(value) <= _LARGEST):
        return value
    if cls in (int, float, complex):
        return {cls.__name__: repr(value)}
    if cls is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if value is ...:
        return {"ellipsis": None}
    if isinstance(value, _TORCH):
        return {"torch": str(value).removeprefix("torch.")}
    if cls is torch.device:
        return {"device": str(value)}
    if isinstance(value, torch.Tensor):
        return {"tensor": keep(value)}
    if cls in (slice, range):
        ends = (value.start, value.stop, value.step)
        return {cls.__name__: [encode(end, keep) for end in ends]}
    if isinstance(value, enum.Enum) or hasattr(cls, "__members__"):
        plain = value.value if isinstance(value, enum.Flag) else value.name
        return {"enum": [class_path(cls), plain]}
    if cls in (tuple, list, torch.Size):
        kind = "size" if cls is torch.Size else cls.__name__
        return {kind: [encode(item, keep) for item in value]}
    if cls in (set, frozenset):
        return {cls.__name__: sorted((encode(item, keep) for item in value), key=repr)}
    if cls is dict:
        return {"dict": [[encode(k, keep), encode(v, keep)] for k, v in value.items()]}
    if is_namedtuple(cls):
        return {"namedtuple": [class_path(cls), *(encode(item, keep) for item in value)]}
    if dataclasses.is_dataclass(cls):
        fields = [f.name for f in dataclasses.fields(cls) if f.init]
        pairs = [[name, encode(getattr(value, name), keep)] for name in fields]
        return {"dataclass": [class_path(cls), *pairs]}
    if cls is GroupSlot:
        return {"group": value.number}
    if isinstance(value, type):
        return {"class": class_path(value)}
    raise ArtifactError(
        f"a {cls.__module__}.{cls.__qualname__} cannot be saved: expected a constant, an enum, a "
        "tensor, or containers and dataclasses of them. Pass or return one of those instead."
    )


def decode(data: Any, tensor: Callable[[str], torch.Tensor], find: FindClass = find_class) -> Any:
    """The value that `encode` described.

    Args:
        data: what `encode` made of it.
        tensor: finds tensors by name.
        find: finds classes by path.

    Raises:
        ArtifactError: a class is not where it was, or the description is none.
    """

    def of_torch(kind: str, content: Any) -> Any:
        match kind:
            case "tensor":
                return tensor(content)
            case "device":
                return torch.device(content)
            case "size":
                return torch.Size(content)
        return _of_torch(content)

    return decoded(data, of_torch, find)
