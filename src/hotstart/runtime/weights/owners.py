"""Keep weights that no model has, and what calls set on its modules. Imports no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from hotstart.errors import ModelMismatch
from hotstart.records.artifact import WeightSpec


class HeldTensors:
    """The tensors of a table of weights, by slot, some of which calls replace.

    Args:
        specs: the table.
        where: the checkpoint that has them, as errors name it.

    Attributes:
        tensors: the tensors as they are now.
        changes: how often one was replaced.
    """

    def __init__(self, specs: Sequence[WeightSpec], where: str) -> None:
        self._specs = specs
        self._about = f"the checkpoint {where}"
        self.tensors: list[Any] = []
        self.changes = 0
        self._setting = threading.Lock()
        self._slots = {
            name: slot for slot, spec in enumerate(specs) for name in (spec.name, *spec.ties)
        }

    def owners(self, paths: Sequence[str]) -> list[Any]:
        """Return objects that keep what is set on them, in place of modules."""
        return [_owner(path, self._set) for path in paths]

    def _set(self, name: str, value: Any) -> None:
        """Keep what a call sets as an attribute of a module, if another call reads it.

        Raises:
            ModelMismatch: it is one name of a tied weight, and others keep the tensor.
        """
        if name not in self._slots:
            return
        spec = self._specs[slot := self._slots[name]]
        with self._setting:
            if spec.ties:
                others = ", ".join(each for each in (spec.name, *spec.ties) if each != name)
                problem = (name, f"the same tensor as {others}", "another, which a call has set")
                raise ModelMismatch([problem], self._about)
            self.tensors[slot] = value
            self.changes += 1


def _owner(path: str, keep: Callable[[str, Any], None]) -> Any:
    """Make an object for the module at a path; `keep` gets what is set on it, by full name."""
    prefix = f"{path}." if path else ""

    class Owner:
        def __setattr__(self, name: str, value: Any) -> None:
            keep(prefix + name, value)

    return Owner()
