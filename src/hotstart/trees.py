"""Describe nested Python values as trees, and build values from trees."""

from __future__ import annotations

import collections
import dataclasses
import enum
import types
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
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


class Part(msgspec.Struct, frozen=True):
    """One part of a container.

    Attributes:
        key: its name, key or number in the container.
        path: how a user would write it.
        value: what it is.
    """

    key: Any
    path: str
    value: Any


def parts_of(value: Any, path: str) -> tuple[Part, ...] | None:
    """The parts of a container that is at `path`, in order; None for what is no container."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        names = [f.name for f in dataclasses.fields(value) if f.init]
        return tuple(Part(n, f"{path}.{n}", getattr(value, n)) for n in names)
    if is_namedtuple(cls):
        pairs = zip(cls._fields, value, strict=True)
        return tuple(Part(name, f"{path}.{name}", item) for name, item in pairs)
    if cls in (tuple, list, torch.Size):
        return tuple(Part(i, f"{path}[{i}]", item) for i, item in enumerate(value))
    if cls in (dict, collections.OrderedDict):
        return tuple(Part(k, f"{path}[{k!r}]", item) for k, item in value.items())
    registered = pytree.SUPPORTED_NODES.get(cls)
    if registered is not None:
        children, _ = registered.flatten_fn(value)
        return tuple(Part(i, f"{path}.<{i}>", item) for i, item in enumerate(children))
    return None


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
    if isinstance(value, CONSTANT_TYPES) and not _holds_symbols(value):
        return Const(value)
    parts = parts_of(value, path)
    if parts is None:
        raise NotATree(path, value)
    trees = [describe(part.value, part.path, leaf) for part in parts]
    pairs = tuple((part.key, tree) for part, tree in zip(parts, trees, strict=True))
    if dataclasses.is_dataclass(cls):
        return Record(cls, pairs)
    if cls in (tuple, list, torch.Size) or is_namedtuple(cls):
        return Seq(cls, tuple(trees))
    if cls in (dict, collections.OrderedDict):
        return Map(cls, pairs)
    _, context = pytree.SUPPORTED_NODES[cls].flatten_fn(value)
    return Registered(cls, context, tuple(trees))


def _holds_symbols(value: object) -> bool:
    """Whether a `torch.Size` holds what stands for sizes of the call to come."""
    return isinstance(value, torch.Size) and any(type(n) is not int for n in value)


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


def classes(tree: Tree) -> Iterator[type]:
    """The class of every container in a tree."""
    match tree:
        case Seq(cls, items) | Registered(cls, _, items):
            yield cls
            for item in items:
                yield from classes(item)
        case Map(cls, entries) | Record(cls, entries):
            yield cls
            for _, item in entries:
                yield from classes(item)


def same_constant(left: object, right: object) -> bool:
    """Whether two constants are interchangeable: same type and value, nan equal to itself."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, float | complex):
        return repr(left) == repr(right)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same_constant, left, right))
    try:
        return bool(left == right)
    except (RuntimeError, TypeError, ValueError):  # tensors and arrays compare item by item
        return False


def is_namedtuple(cls: type) -> bool:
    """Whether a class was made by `namedtuple` or `NamedTuple`."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields")
