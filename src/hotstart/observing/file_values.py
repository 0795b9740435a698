"""Constants and classes that files of calls name."""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
from typing import Any

import torch
import torch.utils._pytree as pytree

from hotstart.artifact.values import decode
from hotstart.errors import ArtifactError
from hotstart.records.nested import (
    Attributes,
    Container,
    Map,
    Record,
    Registered,
    Seq,
    is_namedtuple,
)

_PLAIN = frozenset({
    "int", "float", "complex", "bytes", "ellipsis", "slice", "range", "tuple", "list", "dict",
    "set", "frozenset", "torch", "device", "size", "class",
})  # fmt: skip
"""Kinds of values that are made again without code of a class."""


def imported(path: str) -> type:
    """The class at `module:name`, if its module is imported.

    Raises:
        ArtifactError: it is not, or there is no such class in it.
    """
    module, _, name = path.partition(":")
    found: Any = sys.modules.get(module)
    if found is None:
        raise ArtifactError(
            f"the calls name the class {path.replace(':', '.')}: expected its module to be "
            f"imported, since reading them imports nothing. Import {module} before."
        )
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if not isinstance(found, type):
        raise ArtifactError(
            f"the calls name the class {path.replace(':', '.')}: expected it in its module, found "
            "none. Observe again with the version that is installed."
        )
    return found


def constant(data: Any) -> Any:
    """The value that `encode` described, if making it runs no code of a class.

    Raises:
        ValueError: it is another one.
        ArtifactError: as `imported`.
    """
    if isinstance(data, dict) and set(data) == {"enum"}:
        return _member(data["enum"])
    _require_plain(data)
    return decode(data, _no_tensor, imported)


def require_class(path: str, tree: Container) -> None:
    """Raise if a container of this kind never has this class.

    Raises:
        ValueError: it never has.
    """
    if not _fits(tree):
        name = tree.cls.__qualname__
        raise ValueError(f"{path}: a {name} in the place of a {type(tree).__name__}")


def _fits(tree: Container) -> bool:
    match tree:
        case Seq(cls):
            return cls in (tuple, list, torch.Size) or is_namedtuple(cls)
        case Map(cls):
            return cls in (dict, collections.OrderedDict)
        case Record(cls):
            return dataclasses.is_dataclass(cls) and issubclass(cls, dict | list | tuple)
        case Attributes(cls):
            makes: Any = cls.__new__
            return makes is object.__new__ and not issubclass(cls, torch.nn.Module)
        case Registered(cls):
            return cls in pytree.SUPPORTED_NODES


def _member(content: Any) -> Any:
    path, plain = content
    cls: Any = imported(path) if isinstance(path, str) else None
    if not isinstance(cls, enum.EnumMeta):
        raise ValueError(f"{path!r:.100} in the place of an enum")
    if isinstance(plain, str) and plain in cls.__members__:
        return cls.__members__[plain]
    if not issubclass(cls, enum.Flag) or type(plain) is not int:
        raise ValueError(f"{path} has no {plain!r:.100}")
    return cls(plain)


def _require_plain(data: Any) -> None:
    if isinstance(data, list):
        for item in data:
            _require_plain(item)
    elif isinstance(data, dict):
        kinds = set(data)
        if len(kinds) != 1 or not kinds <= _PLAIN:
            raise ValueError(f"a constant of kind {', '.join(map(str, kinds))}")
        for content in data.values():
            _require_plain(content)


def _no_tensor(_: str) -> torch.Tensor:
    raise ValueError("a tensor in the place of a constant")
