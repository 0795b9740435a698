"""The attributes of modules that a call replaces."""

from __future__ import annotations

import itertools
from typing import Any

from hotstart.errors import CaptureError
from hotstart.first_call.memo import Memo
from hotstart.first_call.snapshot import Snapshot
from hotstart.model import ModelIndex


class ModuleAttributes:
    """The attributes of a model's modules, as they are before a replay."""

    def __init__(self, index: ModelIndex) -> None:
        modules = {path: m for path, m in index.modules.items() if index.path_of(m) == path}
        held = {path: (vars(m), m._parameters, m._buffers) for path, m in modules.items()}
        self._before = {path: [*map(Snapshot, dicts)] for path, dicts in held.items()}
        self._modules = modules
        self._own = {id(one) for path, dicts in held.items() for one in (modules[path], *dicts)}

    def covers(self, obj: object) -> bool:
        """Tell whether a change of an object is a change of attributes of modules."""
        return id(obj) in self._own

    def replaced(self, memo: Memo) -> list[tuple[str, str, Any]]:
        """Path of the module, name and new value of every attribute that is another one by now.

        Those in the memo are left out.

        Raises:
            CaptureError: an attribute was deleted, or registered anew.
        """
        found: list[tuple[str, str, Any]] = []
        for path, before in self._before.items():
            owner, module = path or "the model", self._modules[path]
            gone = {name for held in before for name in held.contents}
            gone = gone.difference(*(held.obj for held in before))
            gone = {name for name in gone if not memo.holds(module, name)}
            if gone:
                names = ", ".join(f"{owner}.{name}" for name in sorted(gone))
                raise CaptureError(
                    f"forward deletes {names}. Set it to None, or move the change out of forward."
                )
            for number, held in enumerate(before):
                for name, value in held.obj.items():
                    if memo.holds(module, name):
                        continue
                    if number and name not in held.contents:
                        raise CaptureError(
                            f"forward registers {name!r} with {owner}. Do so in __init__, or call "
                            "the model once before it is compiled."
                        )
                    if name not in held.contents or held.contents[name] is not value:
                        found.append((path, name, value))
        return found

    def restore(self) -> None:
        """Put everything back."""
        for held in itertools.chain.from_iterable(self._before.values()):
            if held.changed():
                held.put_back()
