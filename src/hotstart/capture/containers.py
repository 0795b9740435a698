"""Containers that the caller passed, and what a call leaves in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotstart.capture.arguments import Arguments
from hotstart.capture.captured import ContainerChange
from hotstart.capture.results import describe_result
from hotstart.errors import CaptureError
from hotstart.first_call.snapshot import Snapshot
from hotstart.records.nested import Attributes, Map, Seq, Slot, Tree, attributes_of, is_changeable
from hotstart.records.trees import Leaf, containers


class PassedContainers:
    """The containers among the arguments of a call, and what they held before it."""

    def __init__(self, arguments: Arguments, values: Sequence[Any]) -> None:
        pairs = zip(arguments.parameters, values, strict=True)
        found = (one for p, value in pairs for one in containers(p.tree, value, p.name))
        self._shared = arguments.shared
        self._found = {
            id(value): (number, path, tree, Snapshot(value))
            for number, (path, tree, value) in enumerate(found)
            if is_changeable(tree)
        }

    def slot(self, value: Any) -> Slot | None:
        """The slot of one of them; None for anything else."""
        found = self._found.get(id(value))
        return None if found is None else Slot("object", found[0])

    def changes(self, leaf: Leaf) -> tuple[ContainerChange, ...]:
        """Describe the containers that are different now.

        Raises:
            CaptureError: a container was changed that is no list, dict or object that is its
                attributes, or while the example has one container in two places.
        """
        found = [
            _change(number, path, tree, before, leaf)
            for number, path, tree, before in self._found.values()
            if before.changed()
        ]
        if found and self._shared:
            raise CaptureError(
                f"forward changes what it is given, and the example has one container as "
                f"{' and as '.join(self._shared)}. Pass a container of its own in each place."
            )
        return tuple(found)


def _change(number: int, path: str, tree: Tree, before: Snapshot, leaf: Leaf) -> ContainerChange:
    value = before.obj
    if isinstance(tree, Attributes):
        old, new = before.contents, attributes_of(value)
        changed = tuple(
            (name, describe_result(item, f"{path}.{name}", leaf))
            for name, item in new.items()
            if name not in old or old[name] is not item
        )
        removed = tuple(name for name in old if name not in new)
        return ContainerChange(number, Attributes(tree.cls, changed), removed)
    contents = describe_result(value, path, lambda at, v: None if v is value else leaf(at, v))
    if not isinstance(contents, Seq | Map):
        raise CaptureError(
            f"forward changes {path}, a {type(value).__qualname__} that the caller passed; lists, "
            "dicts, dataclasses and objects that are their attributes can be changed. Pass one of "
            "those, or return the new value."
        )
    return ContainerChange(number, contents)
