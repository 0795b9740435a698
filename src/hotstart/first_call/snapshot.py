"""Keep what a Python object holds before code runs, to find and undo what that changes."""

from __future__ import annotations

import collections
import contextvars
import types
from typing import Any

from hotstart.first_call.contents import contents_of
from hotstart.records.nested import attributes_of, slot_names


class Snapshot:
    """Contents of an object at one moment.

    Attributes:
        obj: the object.
        contents: a shallow copy of the items of a container, or of an object's attributes.
    """

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.contents: Any = _copied(obj)
        self._state = _state(obj)

    def changed(self) -> bool:
        """Tell whether the object holds something else by now."""
        return self._state != _state(self.obj)

    def keys_changed(self) -> list[Any]:
        """The keys of a dict, or names of attributes, with another value by now, or none."""
        missing, now = object(), _copied(self.obj)
        keys = dict.fromkeys((*self.contents, *now))
        return [k for k in keys if self.contents.get(k, missing) is not now.get(k, missing)]

    def entries_changed(self) -> list[Any]:
        """The keys, names or numbers of what holds something else by now, compared by contents.

        `[None]` of a container that changed as a whole.
        """
        now = _copied(self.obj)
        if isinstance(now, list) and len(now) == len(self.contents):
            keys, old = [*range(len(now))], {**dict(enumerate(self.contents))}
            now = dict(enumerate(now))
        elif isinstance(now, dict):
            keys, old = self.keys_changed(), self.contents
        else:
            return [None] if self.changed() else []
        return [k for k in keys if (k in old) != (k in now) or _differ(old[k], now[k])]

    def put_back(self) -> None:
        """Undo what was done to the object."""
        match self.obj:
            case list():
                self.obj[:] = self.contents
            case collections.deque():
                self.obj.clear()
                self.obj.extend(self.contents)
            case dict():
                _put_back(self.obj, self.contents)
            case set():
                self.obj.clear()
                self.obj.update(self.contents)
            case type():
                self._put_back_class(self.obj)
            case types.CellType():
                if self.contents:
                    self.obj.cell_contents = self.contents[0]
                else:
                    del self.obj.cell_contents
            case _:
                slots = {
                    n: self.contents[n] for n in slot_names(type(self.obj)) if n in self.contents
                }
                for name, value in slots.items():
                    object.__setattr__(self.obj, name, value)
                if hasattr(self.obj, "__dict__"):
                    kept = {n: v for n, v in self.contents.items() if n not in slots}
                    _put_back(vars(self.obj), kept)

    def _put_back_class(self, obj: type) -> None:
        for name in [name for name in vars(obj) if name not in self.contents]:
            delattr(obj, name)
        for name, value in self.contents.items():
            if vars(obj).get(name) is not value:
                setattr(obj, name, value)


def _differ(before: Any, now: Any) -> bool:
    return before is not now and contents_of([before]) != contents_of([now])


def _copied(obj: Any) -> Any:
    if isinstance(obj, list | dict | set | collections.deque):
        return obj.copy()
    if isinstance(obj, types.CellType):
        return _in_cell(obj)
    return attributes_of(obj)


def _in_cell(cell: types.CellType) -> tuple[Any, ...]:
    """The value of a cell as a tuple of one; empty if the cell is empty."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _put_back(held: dict[Any, Any], contents: dict[Any, Any]) -> None:
    """Give a dict its entries back; others see no moment in which those that stayed are missing."""
    for key in [key for key in held if key not in contents]:
        del held[key]
    held.update(contents)
    if [*held] != [*contents]:
        held.clear()
        held.update(contents)


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
    if isinstance(obj, types.CellType):
        return [id(value) for value in _in_cell(obj)]
    if hasattr(obj, "__dict__") or slot_names(type(obj)):
        return {(key, id(value)) for key, value in attributes_of(obj).items()}
    return object()  # equal to nothing: what cannot be compared counts as changed
