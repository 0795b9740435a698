"""Contracts with their constants and classes, read without torch."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from hotstart.artifact.decoded import decoded
from hotstart.artifact.manifest import map_contract
from hotstart.records.classes import find_imported_class
from hotstart.records.contract import Contract
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


def decode(data: Any) -> Any:
    """Read a value as `artifact.values` writes it.

    Raises:
        NeedsTorch: it is or holds something of torch's that a call can bring.
        ArtifactError: a class is not there, or the description is none.
    """
    return decoded(data, _of_torch, _class_at)


def _of_torch(kind: str, content: Any) -> OfTorch:
    match kind:
        case "torch":
            return OfTorch(f"torch.{content}")
        case "device":
            return OfTorch(_device(content))
    raise NeedsTorch(f"a constant is a {kind} of torch's")


def decoded_contract(contract: Contract) -> Contract:
    """Return a contract with its constants, and the classes that its containers are of.

    Raises:
        NeedsTorch, ArtifactError: as `decode`.
    """
    if contract.default_dtype not in (None, "float32"):
        raise NeedsTorch("it was built under another default dtype than float32")
    if contract.default_device not in (None, "cpu"):
        raise NeedsTorch("it was built under another default device than the CPU")
    contract = map_contract(contract, decode)
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
