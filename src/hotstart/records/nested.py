"""Trees: the structure of arguments and results, level by level. Nothing here imports torch."""

import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, TypeGuard

import msgspec
from msgspec.structs import replace

Value: TypeAlias = Any
"""A Python value of the caller's or of the model's."""


class Slot(msgspec.Struct, frozen=True, tag="slot"):
    """A place in a tree that holds something known by number or expression.

    Attributes:
        kind: `"arg"`, a tensor argument; `"out"`, an output of the graph; `"weight"`, an entry of
            the parameter table; `"size"`, an integer computed from axes; `"object"`, a container
            that the caller passed, itself.
        index: number of the argument, output, weight or container; -1 for a size. Containers are
            counted from the outermost on, over all parameters.
        expr: Python expression over axis names, for a size.
        views: attributes that lead from a tensor to a view of it, such as `mT`, taken in each call;
            `numpy()` makes it an array.
    """

    kind: Literal["arg", "out", "weight", "size", "object"]
    index: int = -1
    expr: str = ""
    views: tuple[str, ...] = ()


class Const(msgspec.Struct, frozen=True, tag="const"):
    """A value that is the same in every call."""

    value: Value


class Seq(msgspec.Struct, frozen=True, tag="seq"):
    """A tuple, list or named tuple."""

    cls: type
    items: "tuple[Tree, ...]"


class Map(msgspec.Struct, frozen=True, tag="map"):
    """A dict (or a subclass that is built from pairs), in order."""

    cls: type
    entries: "tuple[tuple[Value, Tree], ...]"


class Record(msgspec.Struct, frozen=True, tag="record"):
    """A dataclass that is also a dict or another builtin container, built by keyword."""

    cls: type
    fields: "tuple[tuple[str, Tree], ...]"


class Attributes(msgspec.Struct, frozen=True, tag="attributes"):
    """An object that is its attributes; they are set, and no code of its class runs."""

    cls: type
    fields: "tuple[tuple[str, Tree], ...]"


class Registered(msgspec.Struct, frozen=True, tag="registered"):
    """Any other type that is registered with torch's pytree."""

    cls: type
    context: Value
    items: "tuple[Tree, ...]"


Container: TypeAlias = Seq | Map | Record | Attributes | Registered
Tree: TypeAlias = Slot | Const | Container


# --- one traversal --------------------------------------------------------------------------------


class Child(msgspec.Struct, frozen=True):
    """A tree or value directly inside a container.

    Attributes:
        key: its name, key or number in the container.
        path: how a user would write it.
        value: a tree, or a value in a container that was opened.
    """

    key: Any
    path: str
    value: Any


def children(tree: Tree | None, path: str = "") -> tuple[Child, ...]:
    """The children of a container that is at `path`, in order; none of anything else."""
    match tree:
        case Seq(cls, items) if is_namedtuple(cls):
            fields: tuple[str, ...] = getattr(cls, "_fields")  # noqa: B009
            return tuple(Child(n, f"{path}.{n}", v) for n, v in zip(fields, items, strict=True))
        case Seq(_, items):
            return tuple(Child(i, f"{path}[{i}]", item) for i, item in enumerate(items))
        case Map(_, entries):
            return tuple(Child(key, f"{path}[{key!r}]", item) for key, item in entries)
        case Record(_, named) | Attributes(_, named):
            return tuple(Child(name, f"{path}.{name}", item) for name, item in named)
        case Registered(_, _, items):
            return tuple(Child(i, f"{path}.<{i}>", item) for i, item in enumerate(items))
    return ()


def filled(tree: Container, items: Iterable[Any]) -> Container:
    """A container with other children."""
    if isinstance(tree, Seq | Registered):
        return replace(tree, items=tuple(items))
    keys = (child.key for child in children(tree))
    pairs = tuple(zip(keys, items, strict=True))
    return replace(tree, entries=pairs) if isinstance(tree, Map) else replace(tree, fields=pairs)


def walk(tree: Tree, path: str = "") -> Iterator[tuple[str, Tree]]:
    """A tree and every tree in it with their paths, in order, from the outermost on."""
    yield path, tree
    for child in children(tree, path):
        yield from walk(child.value, child.path)


def is_container(tree: Tree) -> TypeGuard[Container]:
    """Tell whether a tree describes a container."""
    return not isinstance(tree, Slot | Const)


def is_changeable(tree: Tree) -> TypeGuard[Container]:
    """Tell whether a tree describes a container that code can change."""
    return is_container(tree) and not issubclass(tree.cls, tuple)


# --- objects and constants ------------------------------------------------------------------------


_NONE: Mapping[str, Any] = types.MappingProxyType({})


def slot_names(cls: type) -> tuple[str, ...]:
    """The attributes that instances of a class keep in `__slots__`."""
    declared = (vars(base).get("__slots__", ()) for base in reversed(cls.__mro__))
    names = (n for names in declared for n in ((names,) if isinstance(names, str) else names))
    return tuple(n for n in names if n not in ("__dict__", "__weakref__"))


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes that an object keeps, in its slots and its dict."""
    slotted = {n: getattr(value, n) for n in slot_names(type(value)) if hasattr(value, n)}
    return {**slotted, **getattr(value, "__dict__", {})}


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


def same_constant(left: object, right: object) -> bool:
    """Tell whether two constants are interchangeable: same type and value, nan equal to itself."""
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
    """Tell whether a class was made by `namedtuple` or `NamedTuple`."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields")
