"""Identifiers for generated code, and the objects that some of them stand for. Imports no torch."""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any


class Names:
    """Hands out identifiers that are unique and neither keywords nor builtins."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._avoided = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
        self._taken = set(reserved)

    def new(self, wanted: str) -> str:
        """A fresh identifier that looks like `wanted`."""
        base = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_") or "value"
        if base[0].isdigit():
            base = f"_{base}"
        name, n = base, 1
        while name in self._taken or name in self._avoided:
            name, n = f"{base}_{n}", n + 1
        self._taken.add(name)
        return name

    def taken(self, name: str) -> bool:
        """Tell whether an identifier was handed out or reserved."""
        return name in self._taken

    def exactly(self, name: str) -> str:
        """Take an identifier as it is."""
        self._taken.add(name)
        return name


class Scope(Names):
    """Hands out names, and keeps the objects that some of them stand for.

    Attributes:
        objects: those objects, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Any] = {}
        self._named: dict[int, str] = {}

    def refer(self, wanted: str, value: Any) -> str:
        """A name for an object; the same one whenever it is asked for."""
        if id(value) not in self._named:
            name = self._named[id(value)] = self.new(wanted)
            self.objects[name] = value
        return self._named[id(value)]

    def constant(self, value: Any, wanted: str) -> str:
        """A literal for an object; a name where no literal says it."""
        if value is ...:
            return "..."
        if value is None or type(value) in (bool, int, str, bytes):
            return repr(value)
        if type(value) is float and math.isfinite(value):
            return repr(value)
        if type(value) is list and all(type(item) in (int, str) for item in value):
            return repr(value)
        return self.refer(wanted, value)

    def class_name(self, cls: type) -> str:
        """A name for a class."""
        known = getattr(builtins, cls.__name__, None) is cls
        return self.builtin(cls.__name__) if known else self.refer(cls.__name__, cls)

    def builtin(self, name: str) -> str:
        """A builtin; under another name where a parameter has its own."""
        return self.refer(name, getattr(builtins, name)) if self.taken(name) else name


def written_tuple(parts: Iterable[str]) -> str:
    """A tuple of expressions."""
    inside = ", ".join(listed := list(parts))
    return f"({inside},)" if len(listed) == 1 else f"({inside})"


def assignment(names: Sequence[str], value: str) -> str:
    """A statement that takes a sequence apart; just the value where there is nothing to name."""
    if not names:
        return value
    return f"{written_tuple(names) if len(names) == 1 else ', '.join(names)} = {value}"
