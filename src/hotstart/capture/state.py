"""Keep what a Python object holds before a replay, to find and undo what that changes."""

from __future__ import annotations

import collections
import contextvars
from typing import Any

from hotstart.records.nested import attributes_of, slot_names


class Snapshot:
    """What an object holds now.

    Attributes:
        obj: the object.
        contents: a shallow copy of the items of a container, or of an object's attributes.
    """

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        copied = isinstance(obj, list | dict | set)
        self.contents: Any = obj.copy() if copied else attributes_of(obj)
        self._state = _state(obj)

    def changed(self) -> bool:
        """Tell whether the object holds something else by now."""
        return self._state != _state(self.obj)

    def put_back(self) -> None:
        """Undo what was done to the object."""
        if isinstance(self.obj, list):
            self.obj[:] = self.contents
        elif isinstance(self.obj, dict | set):
            self.obj.clear()
            self.obj.update(self.contents)
        elif hasattr(self.obj, "__dict__"):
            vars(self.obj).clear()
            vars(self.obj).update(self.contents)


def _state(obj: Any) -> object:
    """List what an object holds, by identity.

    A change that is undone before forward returns, such as a context variable's, does not count.
    """
    if isinstance(obj, contextvars.ContextVar):
        return id(obj.get(None))
    if isinstance(obj, dict):
        return [(key, id(value)) for key, value in obj.items()]
    if isinstance(obj, list | set | tuple | collections.deque):
        return [id(value) for value in obj]
    if hasattr(obj, "__dict__") or slot_names(type(obj)):
        return {(key, id(value)) for key, value in attributes_of(obj).items()}
    return object()  # equal to nothing: what cannot be compared counts as changed
