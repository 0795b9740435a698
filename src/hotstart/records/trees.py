"""Describe nested Python values as trees, and build values from trees."""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeGuard

import msgspec
import torch
import torch.utils._pytree as pytree

from hotstart.records.artifact import (
    Attributes,
    Const,
    Container,
    Map,
    Record,
    Registered,
    Seq,
    Slot,
    Tree,
)

CONSTANT_TYPES: tuple[type, ...] = (
    bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType, slice, range,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, enum.Enum, type,
)  # fmt: skip


class NotATree(TypeError):
    """A value that cannot be described.

    Attributes:
        path: where it is, as a user would write it.
        value: the value.
        found: its class, and why it cannot be described if others of its class can.
    """

    def __init__(self, path: str, value: object, reason: str = "") -> None:
        self.path = path
        self.value = value
        self.found = f"a {type(value).__qualname__} {reason}".rstrip()
        super().__init__(f"{path} is {self.found}")


Leaf = Callable[[str, Any], Tree | None]
"""Gives the tree for a value at a path, or None for a value that is no leaf of the caller's."""

Kind = Literal["record", "sequence", "map", "object", "registered"]


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


def kind_of(value: Any) -> Kind | None:
    """How a container is taken apart and built again; None for what is no container."""
    cls = type(value)
    if cls in (tuple, list, torch.Size) or is_namedtuple(cls):
        return "sequence"
    if cls in (dict, collections.OrderedDict):
        return "map"
    plain = _is_plain(value)
    if dataclasses.is_dataclass(cls):
        if not plain:
            return "record"
    else:
        plain = plain and not _is_known_by_identity(value)
    if cls in pytree.SUPPORTED_NODES:
        # Attributes say it all, where an unflatten function may copy, and leave things out.
        return "object" if plain and _holds_trees(value) else "registered"
    return "object" if plain else None


def parts_of(value: Any, path: str) -> tuple[Part, ...] | None:
    """The parts of a container that is at `path`, in order; None for what is no container."""
    match kind_of(value):
        case "record":
            names = [f.name for f in dataclasses.fields(value) if f.init]
            return tuple(Part(n, f"{path}.{n}", getattr(value, n)) for n in names)
        case "object":
            return tuple(Part(n, f"{path}.{n}", v) for n, v in attributes_of(value).items())
        case "sequence" if is_namedtuple(type(value)):
            pairs = zip(type(value)._fields, value, strict=True)
            return tuple(Part(name, f"{path}.{name}", item) for name, item in pairs)
        case "sequence":
            return tuple(Part(i, f"{path}[{i}]", item) for i, item in enumerate(value))
        case "map":
            return tuple(Part(k, f"{path}[{k!r}]", item) for k, item in value.items())
        case "registered":
            return children_of(value, path)
    return None


def children_of(value: Any, path: str) -> tuple[Part, ...] | None:
    """The parts that a type registered with pytree flattens to; None for any other."""
    registered = pytree.SUPPORTED_NODES.get(type(value))
    if registered is None:
        return None
    children, _ = registered.flatten_fn(value)
    return tuple(Part(i, f"{path}.<{i}>", item) for i, item in enumerate(children))


def describe(value: Any, path: str, leaf: Leaf) -> Tree:
    """Describe `value` as a tree; `leaf` is asked first at every level.

    Raises:
        NotATree: a value of a type that is neither a container, a constant, nor an object that is
            its attributes, nor registered with torch's pytree; or one that contains itself.
    """
    return _described(value, path, leaf, ())


def _described(value: Any, path: str, leaf: Leaf, inside: tuple[int, ...]) -> Tree:
    made = leaf(path, value)
    if made is not None:
        return made
    cls = type(value)
    if isinstance(value, CONSTANT_TYPES) and not _holds_symbols(value):
        return Const(value)
    kind, parts = kind_of(value), parts_of(value, path)
    if kind is None or parts is None:
        raise NotATree(path, value)
    if id(value) in inside:
        raise NotATree(path, value, "that contains itself")
    if kind in ("record", "registered") and _makes_tensors(value):
        raise NotATree(path, value, "that makes tensors when it is built from its parts")
    if kind == "record" and attributes_of(value).keys() != {part.key for part in parts}:
        raise NotATree(path, value, "that has attributes besides its fields")
    inside = (*inside, id(value))
    try:
        trees = [_described(part.value, part.path, leaf, inside) for part in parts]
    except NotATree as error:
        if kind != "object" or dataclasses.is_dataclass(cls):
            raise
        where = error.path.removeprefix(f"{path}.")
        raise NotATree(path, value, f"whose {where} is {error.found}") from error
    pairs = tuple((part.key, tree) for part, tree in zip(parts, trees, strict=True))
    match kind:
        case "record":
            return Record(cls, pairs)
        case "object":
            return Attributes(cls, pairs)
        case "sequence":
            return Seq(cls, tuple(trees))
        case "map":
            return Map(cls, pairs)
    _, context = pytree.SUPPORTED_NODES[cls].flatten_fn(value)
    return Registered(cls, context, tuple(trees))


def _holds_symbols(value: object) -> bool:
    """Whether a `torch.Size` holds what stands for sizes of the call to come."""
    return isinstance(value, torch.Size) and any(type(n) is not int for n in value)


_HEAP_TYPE = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: classes that Python code defines have it."""


def _is_plain(value: object) -> bool:
    """Whether an object is its attributes and nothing else."""
    cls = type(value)
    in_python = all(base is object or base.__flags__ & _HEAP_TYPE for base in cls.__mro__)
    return in_python and cls.__new__ is object.__new__ and not isinstance(value, torch.nn.Module)


def _is_known_by_identity(value: object) -> bool:
    """Whether code may ask for an object itself: a sentinel, or one its module or class names."""
    cls = type(value)
    scopes = (vars(cls), vars(sys.modules.get(cls.__module__, types)))
    named = any(known is value for scope in scopes for known in scope.values())
    return named or not attributes_of(value)


def _holds_trees(value: object) -> bool:
    """Whether all attributes of an object can be described."""

    def leaf(_: str, item: object) -> Tree | None:
        return Slot("out") if isinstance(item, torch.Tensor | torch.SymInt) else None

    try:
        for item in attributes_of(value).values():
            describe(item, "", leaf)
    except (NotATree, RecursionError):
        return False
    return True


_NONE: Mapping[str, Any] = types.MappingProxyType({})


def slot_names(cls: type) -> tuple[str, ...]:
    """The attributes that instances of a class keep in `__slots__`."""
    declared = (vars(base).get("__slots__", ()) for base in reversed(cls.__mro__))
    names = (n for names in declared for n in ((names,) if isinstance(names, str) else names))
    return tuple(n for n in names if n not in ("__dict__", "__weakref__"))


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object that is its attributes."""
    kept = {n: getattr(value, n) for n in slot_names(type(value)) if hasattr(value, n)}
    return kept | getattr(value, "__dict__", {})


def assemble(cls: type, attributes: Mapping[str, Any], slotted: Mapping[str, Any] = _NONE) -> Any:
    """An object with these attributes, on which no code of its class has run.

    Args:
        cls: its class.
        attributes: those in its `__dict__`.
        slotted: those in its slots.
    """
    made: Any = object.__new__(cls)
    if attributes:
        made.__dict__.update(attributes)
    for name, value in slotted.items():
        object.__setattr__(made, name, value)
    return made


def _makes_tensors(value: Any) -> bool:
    """Whether building a container from its parts makes tensors that are none of its parts."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        rebuilt = cls(**parts)
        given = _tensors_in(parts)
    else:
        kind = pytree.SUPPORTED_NODES[cls]
        children, context = kind.flatten_fn(value)
        given = _tensors_in(children)
        rebuilt = kind.unflatten_fn(children, context)
    return not _tensors_in(rebuilt).keys() <= given.keys()


def _tensors_in(value: Any) -> dict[int, torch.Tensor]:
    """Every tensor that containers and attributes lead to, by identity."""
    found: dict[int, torch.Tensor] = {}
    waiting: list[Any] = [value]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | torch.nn.Module | types.ModuleType):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            found[id(item)] = item
            continue
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset | collections.deque):
            waiting += item
        waiting += getattr(item, "__dict__", {}).values()
    return found


def build(tree: Tree, slot: Callable[[Slot], Any]) -> Any:
    """The value a tree describes, with `slot` filling in what differs from call to call."""
    match tree:
        case Slot():
            return slot(tree)
        case Const(value):
            return value
        case Seq(cls, items):
            made: list[Any] = [build(item, slot) for item in items]
            return cls(*made) if is_namedtuple(cls) else cls(made)
        case Map(cls, entries):
            return cls((key, build(item, slot)) for key, item in entries)
        case Record(cls, fields):
            return cls(**{name: build(item, slot) for name, item in fields})
        case Attributes(cls, fields):
            slotted = slot_names(cls)
            values = {name: build(item, slot) for name, item in fields}
            return assemble(
                cls,
                {name: value for name, value in values.items() if name not in slotted},
                {name: value for name, value in values.items() if name in slotted},
            )
        case Registered(cls, context, items):
            children = [build(item, slot) for item in items]
            return pytree.SUPPORTED_NODES[cls].unflatten_fn(children, context)


def containers(tree: Tree, value: Any, path: str) -> Iterator[tuple[str, Container, Any]]:
    """Path, tree and value of every container in a value, from the outermost on."""
    if isinstance(tree, Slot | Const):
        return
    yield path, tree, value
    for part, (_, inner) in zip(parts_of(value, path) or (), keyed_parts(tree), strict=True):
        yield from containers(inner, part.value, part.path)


def is_changeable(tree: Tree) -> TypeGuard[Container]:
    """Whether a tree describes a container that code can change."""
    return not isinstance(tree, Slot | Const) and not issubclass(tree.cls, tuple)


def keyed_parts(tree: Tree) -> tuple[tuple[Any, Tree], ...]:
    """The trees directly inside a tree, each with its name, key or number."""
    match tree:
        case Seq(_, items) | Registered(_, _, items):
            return tuple(enumerate(items))
        case Map(_, entries) | Record(_, entries) | Attributes(_, entries):
            return entries
    return ()


def slots(tree: Tree) -> Iterator[Slot]:
    """Every slot of a tree, in order."""
    if isinstance(tree, Slot):
        yield tree
    for _, part in keyed_parts(tree):
        yield from slots(part)


def classes(tree: Tree) -> Iterator[type]:
    """Every class in a tree, of a container or as a constant."""
    if isinstance(tree, Const) and isinstance(tree.value, type):
        yield tree.value
    if not isinstance(tree, Slot | Const):
        yield tree.cls
    for _, part in keyed_parts(tree):
        yield from classes(part)


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
