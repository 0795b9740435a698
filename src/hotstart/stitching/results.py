"""Write expressions that build results, and what a call leaves in containers of the caller's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hotstart.partition.tokens import import_path
from hotstart.records.classes import comes_with_python_or_torch
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
    children,
    is_namedtuple,
    slot_names,
)
from hotstart.records.standalone import ResultKind, ResultType
from hotstart.runtime.code.identifiers import Names, written_tuple
from hotstart.stitching.emit import Emitter


class Results:
    """Writes trees as expressions.

    Args:
        emitter: writes values, and keeps what cannot be written.
        names: gives names to classes.
        slot: writes what is in a slot.

    Attributes:
        types: by class of a library, its name, and what is given for it when code is bound.
    """

    def __init__(self, emitter: Emitter, names: Names, slot: Callable[[Slot], str]) -> None:
        self._emitter = emitter
        self._names = names
        self._slot = slot
        self.types: dict[type, tuple[str, ResultType]] = {}

    def written(self, tree: Tree) -> str:
        """Write a result. Classes of a library are given when the code is bound."""
        return self._expression(tree, self._class)

    def with_imported_classes(self, tree: Tree) -> str:
        """Write a tree whose classes are imported, whatever they are."""
        return self._expression(tree, self._imported_class)

    def _expression(self, tree: Tree, named: Callable[[Container], str]) -> str:
        match tree:
            case Slot():
                return self._slot(tree)
            case Const(value):
                return self._emitter.value(value)
        inside = [(child.key, self._expression(child.value, named)) for child in children(tree)]
        listed = ", ".join(item for _, item in inside)
        match tree:
            case Seq(cls) if is_namedtuple(cls):
                return f"{named(tree)}({listed})"
            case Seq(cls):
                literal = f"[{listed}]" if cls is list else written_tuple(i for _, i in inside)
                return f"{named(tree)}({literal})" if cls is torch.Size else literal
            case Map(cls):
                pairs = ", ".join(f"{self._emitter.value(key)}: {item}" for key, item in inside)
                return f"{{{pairs}}}" if cls is dict else f"{named(tree)}({{{pairs}}})"
            case Record():
                return f"{named(tree)}({', '.join(f'{name}={item}' for name, item in inside)})"
            case Attributes(cls):
                slotted = slot_names(cls)
                kept = ", ".join(f"{n!r}: {item}" for n, item in inside if n not in slotted)
                others = ", ".join(f"{n!r}: {item}" for n, item in inside if n in slotted)
                more = f", {{{others}}}" if others else ""
                return f"{self._emitter.imported(assemble)}({named(tree)}, {{{kept}}}{more})"
            case Registered(_, context):
                made = self._emitter.constant(context, "context")
                function = self._emitter.imported(unflatten)
                return f"{function}({named(tree)}, [{listed}], {made})"

    def _imported_class(self, tree: Container) -> str:
        return self._emitter.imported(tree.cls)

    def _class(self, tree: Container) -> str:
        """The name of a container's class; one of a library is given when the code is bound."""
        cls = tree.cls
        path = import_path(cls)
        if path is None or comes_with_python_or_torch(path[0]):
            return self._emitter.imported(cls)
        if cls not in self.types:
            wanted = ResultType(":".join(path), *_form(tree))
            self.types[cls] = (self._names.new(cls.__name__), wanted)
        return self.types[cls][0]


def _form(tree: Container) -> tuple[ResultKind, tuple[str, ...]]:
    """Say how a container is built, and name what is in it."""
    fields = tuple(str(child.key) for child in children(tree))
    match tree:
        case Seq(cls):
            return "named tuple", cls._fields  # type: ignore[attr-defined]
        case Record(cls):
            return ("mapping" if issubclass(cls, dict) else "attributes"), fields
        case Attributes():
            return "attributes", fields
    return "registered", ()
