"""Describe nested Python values as trees, and build values from trees."""

import collections
import dataclasses
import enum
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
import torch.utils._pytree as pytree

from hotstart.records.layout import unflatten
from hotstart.records.nested import (
    Attributes,
    Const,
    Container,
    Map,
    Record,
    Registered,
    Seq,
    Slot,
    Tree,
    assemble,
    attributes_of,
    children,
    filled,
    is_container,
    is_namedtuple,
    slot_names,
    walk,
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


# --- one level ------------------------------------------------------------------------------------


def opened(value: Any) -> Container | None:
    """Describe one level of a container, with values in place of trees; None for no container."""
    cls = type(value)
    if cls in (tuple, list, torch.Size) or is_namedtuple(cls):
        return Seq(cls, tuple(value))
    if cls in (dict, collections.OrderedDict):
        return Map(cls, tuple(value.items()))
    plain = _is_plain(value)
    if dataclasses.is_dataclass(cls):
        if not plain:
            names = (field.name for field in dataclasses.fields(cls) if field.init)
            return Record(cls, tuple((name, getattr(value, name)) for name in names))
    else:
        plain = plain and not _is_known_by_identity(value)
    # Attributes say it all, where an unflatten function may copy, and leave things out.
    if cls in pytree.SUPPORTED_NODES and not (plain and _holds_trees(value)):
        return flattened(value)
    return Attributes(cls, tuple(attributes_of(value).items())) if plain else None


def flattened(value: Any) -> Registered | None:
    """The same by the flatten function that pytree knows for a type; None if it knows none."""
    registered = pytree.SUPPORTED_NODES.get(type(value))
    if registered is None:
        return None
    items, context = registered.flatten_fn(value)
    return Registered(type(value), context, tuple(items))


def closed(tree: Container) -> Any:
    """Build the value of a container whose children are values."""
    match tree:
        case Seq(cls, items):
            make: Callable[[Iterable[Any]], Any] = getattr(cls, "_make", cls)
            return make(items)
        case Map(cls, entries):
            return cls(entries)
        case Record(cls, fields):
            return cls(**dict(fields))
        case Attributes(cls, fields):
            slotted = slot_names(cls)
            kept = {name: value for name, value in fields if name not in slotted}
            return assemble(cls, kept, {n: value for n, value in fields if n in slotted})
        case Registered(cls, context, items):
            return unflatten(cls, list(items), context)


# --- all levels -----------------------------------------------------------------------------------


def describe(value: Any, path: str, leaf: Leaf) -> Tree:
    """Describe `value` as a tree; `leaf` is asked first at every level.

    Raises:
        NotATree: a value of a type that is neither a container, a constant, nor an object that is
            its attributes, nor registered with torch's pytree; or one that contains itself.
    """
    return _described(value, path, leaf, ())


def _described(value: Any, path: str, leaf: Leaf, inside: tuple[int, ...]) -> Tree:
    found = leaf(path, value)
    if found is not None:
        return found
    if isinstance(value, CONSTANT_TYPES) and not _holds_symbols(value):
        return Const(value)
    container = opened(value)
    if container is None:
        raise NotATree(path, value)
    if id(value) in inside:
        raise NotATree(path, value, "that contains itself")
    if isinstance(container, Record | Registered) and _makes_tensors(container):
        raise NotATree(path, value, "that makes tensors when it is built from its parts")
    if isinstance(container, Record) and {*attributes_of(value)} != {*dict(container.fields)}:
        raise NotATree(path, value, "that has attributes besides its fields")
    inside = (*inside, id(value))
    try:
        inner = children(container, path)
        trees = [_described(child.value, child.path, leaf, inside) for child in inner]
    except NotATree as error:
        if not isinstance(container, Attributes) or dataclasses.is_dataclass(value):
            raise
        where = error.path.removeprefix(f"{path}.")
        raise NotATree(path, value, f"whose {where} is {error.found}") from error
    return filled(container, trees)


def build(tree: Tree, slot: Callable[[Slot], Any]) -> Any:
    """The value a tree describes, with `slot` filling in what differs from call to call."""
    match tree:
        case Slot():
            return slot(tree)
        case Const(value):
            return value
    return closed(filled(tree, (build(child.value, slot) for child in children(tree))))


def slots(tree: Tree) -> Iterator[Slot]:
    """Every slot of a tree, in order."""
    return (found for _, found in walk(tree) if isinstance(found, Slot))


def passed_on(trees: Iterable[Tree], kind: Literal["arg", "object"]) -> tuple[int, ...]:
    """List the tensor arguments, or containers, that results contain themselves, by number."""
    return tuple(sorted({s.index for tree in trees for s in slots(tree) if s.kind == kind}))


def classes(tree: Tree) -> Iterator[type]:
    """Every class in a tree, of a container or as a constant."""
    for _, found in walk(tree):
        if is_container(found):
            yield found.cls
        elif isinstance(found, Const) and isinstance(found.value, type):
            yield found.value


def containers(tree: Tree, value: Any, path: str) -> Iterator[tuple[str, Container, Any]]:
    """Path, tree and value of every container in a value, from the outermost on."""
    if is_container(tree):
        yield path, tree, value
        for child, held in zip(children(tree, path), children(opened(value)), strict=True):
            yield from containers(child.value, held.value, child.path)


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a value with its path, in order; arrays of numpy's as tensors."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif f"{type(value).__module__}.{type(value).__name__}" == "numpy.ndarray":
        yield path, torch.as_tensor(value)
    elif not isinstance(value, CONSTANT_TYPES):
        for child in children(opened(value), path):
            yield from tensors_of(child.value, child.path)


# --- objects and constants ------------------------------------------------------------------------


def _holds_symbols(value: object) -> bool:
    """Tell whether a `torch.Size` holds what stands for sizes of the call to come."""
    return isinstance(value, torch.Size) and any(type(n) is not int for n in value)


_HEAP_TYPE = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: classes that Python code defines have it."""


def _is_plain(value: object) -> bool:
    """Tell whether an object is its attributes and nothing else."""
    cls = type(value)
    in_python = all(base is object or base.__flags__ & _HEAP_TYPE for base in cls.__mro__)
    return in_python and cls.__new__ is object.__new__ and not isinstance(value, torch.nn.Module)


def _is_known_by_identity(value: object) -> bool:
    """Tell whether code may ask for an object itself: a sentinel, or one with a name."""
    cls = type(value)
    scopes = (vars(cls), vars(sys.modules.get(cls.__module__, types)))
    named = any(known is value for scope in scopes for known in scope.values())
    return named or not attributes_of(value)


def _holds_trees(value: object) -> bool:
    """Tell whether all attributes of an object can be described."""

    def leaf(_: str, item: object) -> Tree | None:
        return Slot("out") if isinstance(item, torch.Tensor | torch.SymInt) else None

    try:
        for item in attributes_of(value).values():
            describe(item, "", leaf)
    except (NotATree, RecursionError):
        return False
    return True


def _makes_tensors(container: Record | Registered) -> bool:
    """Tell whether building a container from its parts makes tensors that are none of its parts."""
    given = _tensors_in([child.value for child in children(container)])
    return not _tensors_in(closed(container)).keys() <= given.keys()


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
