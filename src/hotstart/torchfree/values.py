"""Contracts with their constants and classes, read without torch."""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from hotstart.artifact.manifest import map_contract
from hotstart.records.artifact import Contract
from hotstart.records.classes import find_imported_class
from hotstart.records.nested import Registered, Tree, children, filled, is_container


class NeedsTorch(Exception):
    """A program takes Python's torch; the text says why."""


class OfTorch:
    """Stands for a constant of torch's, such as a dtype, which nobody can pass without torch.

    Args:
        text: its `repr`.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        """Compare with another, or with the constant itself, if torch is imported by now."""
        is_torch = type(other).__module__.partition(".")[0] == "torch"
        return (is_torch or isinstance(other, OfTorch)) and repr(other) == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class NamesOfTorch:
    """Stands for the module torch in code that names constants in results."""

    Size = tuple

    def __getattr__(self, name: str) -> OfTorch:
        return OfTorch(f"torch.{name}")

    @staticmethod
    def device(type: str, index: int | None = None) -> OfTorch:
        """Return what stands for a device."""
        return OfTorch(_device(type if index is None else f"{type}:{index}"))


_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "complex": complex,
    "bytes": base64.b64decode,
    "torch": lambda name: OfTorch(f"torch.{name}"),
    "ellipsis": lambda _: ...,
}
_SEQUENCES: Mapping[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "slice": lambda parts: slice(*parts),
    "range": lambda parts: range(*parts),
}


def decoded(data: Any) -> Any:
    """Read a value as `artifact.values` writes it.

    Raises:
        NeedsTorch: it is or holds something of torch's that a call can bring.
        ArtifactError: a class is not there.
    """
    if not isinstance(data, dict):
        return data
    ((kind, content),) = data.items()
    if kind in _SCALARS:
        return _SCALARS[kind](content)
    if kind == "device":
        return OfTorch(_device(content))
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](list(map(decoded, content)))
    if kind == "dict":
        return {decoded(key): decoded(value) for key, value in content}
    if kind == "class":
        return _class_at(content)
    if kind not in ("enum", "namedtuple", "dataclass"):
        raise NeedsTorch(f"a constant is a {kind} of torch's")
    path, *parts = content
    cls: Any = _class_at(path)
    if kind == "enum":
        (plain,) = parts
        return cls(plain) if issubclass(cls, enum.Flag) else getattr(cls, plain)
    if kind == "namedtuple":
        return cls(*map(decoded, parts))
    return cls(**{name: decoded(item) for name, item in parts})


def decoded_contract(contract: Contract) -> Contract:
    """Return a contract with its constants, and the classes that its containers are of.

    Raises:
        NeedsTorch, ArtifactError: as `decoded`.
    """
    contract = map_contract(contract, decoded)
    parameters = tuple(replace(p, tree=_with_classes(p.tree)) for p in contract.parameters)
    return replace(contract, parameters=parameters)


def _with_classes(tree: Tree) -> Tree:
    if isinstance(tree, Registered):
        raise NeedsTorch(f"only torch's pytree knows what a {tree.cls.__qualname__} consists of")
    if not is_container(tree):
        return tree
    items = (_with_classes(child.value) for child in children(tree))
    # A file names classes; what stands for them until now has their names.
    cls = _class_at(f"{tree.cls.__module__}:{tree.cls.__qualname__}")
    return replace(filled(tree, items), cls=cls)


def _class_at(path: str) -> type:
    """The class at a path, as a load with weights finds it.

    Raises:
        NeedsTorch: it is torch's.
        ArtifactError: its module is not imported, or has no such class.
    """
    if path.partition(":")[0].partition(".")[0] == "torch":
        raise NeedsTorch(f"a call takes a {path.replace(':', '.')}")
    return find_imported_class(path)


def _device(text: str) -> str:
    """The `repr` of a device, given its text."""
    kind, _, index = text.partition(":")
    return f"device(type={kind!r}, index={index})" if index else f"device(type={kind!r})"
