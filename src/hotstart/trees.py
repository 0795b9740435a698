"""Describe nested Python values as trees, and build values from trees."""

from __future__ import annotations

import collections
import dataclasses
import enum
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree

from hotstart.ir import Const, Map, Record, Registered, Seq, Slot, Tree

CONSTANT_TYPES: tuple[type, ...] = (
    bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType, slice, range,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, enum.Enum,
)  # fmt: skip


class NotATree(TypeError):
    """A value that cannot be described.

    Attributes:
        path: where it is, as a user would write it.
        value: the value.
    """

    def __init__(self, path: str, value: object) -> None:
        self.path = path
        self.value = value
        super().__init__(f"{path} is a {type(value).__qualname__}")


Leaf = Callable[[str, Any], Tree | None]
"""Gives the tree for a value at a path, or None for a value that is no leaf of the caller's."""


def describe(value: Any, path: str, leaf: Leaf) -> Tree:
    """Describe `value` as a tree; `leaf` is asked first at every level.

    Raises:
        NotATree: a value of a type that is neither a container, a constant, nor registered with
            torch's pytree.
    """
    made = leaf(path, value)
    if made is not None:
        return made
    cls = type(value)
    if isinstance(value, CONSTANT_TYPES):
        return Const(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.init]
        return Record(
            cls, tuple((n, describe(getattr(value, n), f"{path}.{n}", leaf)) for n in names)
        )
    if cls in (tuple, list) or is_namedtuple(cls):
        return Seq(
            cls, tuple(describe(v, child, leaf) for v, child in zip(value, paths(value, path)))
        )
    if cls in (dict, collections.OrderedDict):
        return Map(
            cls, tuple((k, describe(v, f"{path}[{k!r}]", leaf)) for k, v in value.items())
        )
    registered = pytree.SUPPORTED_NODES.get(cls)
    if registered is not None:
        children, context = registered.flatten_fn(value)
        return Registered(
            cls,
            context,
            tuple(describe(v, f"{path}.<{i}>", leaf) for i, v in enumerate(children)),
        )
    raise NotATree(path, value)


def paths(sequence: Any, path: str) -> Iterator[str]:
    """How a user writes each item of a sequence that is at `path`."""
    if is_namedtuple(type(sequence)):
        return (f"{path}.{name}" for name in type(sequence)._fields)
    return (f"{path}[{i}]" for i in range(len(sequence)))


def build(tree: Tree, slot: Callable[[Slot], Any]) -> Any:
    """The value a tree describes, with `slot` filling in what differs from call to call."""
    match tree:
        case Slot():
            return slot(tree)
        case Const(value):
            return value
        case Seq(cls, items):
            made = [build(item, slot) for item in items]
            return cls(*made) if is_namedtuple(cls) else cls(made)
        case Map(cls, entries):
            return cls((key, build(item, slot)) for key, item in entries)
        case Record(cls, fields):
            return cls(**{name: build(item, slot) for name, item in fields})
        case Registered(cls, context, items):
            children = [build(item, slot) for item in items]
            return pytree.SUPPORTED_NODES[cls].unflatten_fn(children, context)


def slots(tree: Tree) -> Iterator[Slot]:
    """Every slot of a tree, in order."""
    match tree:
        case Slot():
            yield tree
        case Const():
            pass
        case Seq(_, items) | Registered(_, _, items):
            for item in items:
                yield from slots(item)
        case Map(_, entries) | Record(_, entries):
            for _, item in entries:
                yield from slots(item)


def same_constant(left: object, right: object) -> bool:
    """Whether two constants are interchangeable: same type and value, nan equal to itself."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, float | complex):
        return repr(left) == repr(right)
    return bool(left == right)


def is_namedtuple(cls: type) -> bool:
    """Whether a class was made by `namedtuple` or `NamedTuple`."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


