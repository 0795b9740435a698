"""Identifiers for generated code."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable


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
        """Whether an identifier was handed out or reserved."""
        return name in self._taken

    def exactly(self, name: str) -> str:
        """Take an identifier as it is."""
        self._taken.add(name)
        return name
