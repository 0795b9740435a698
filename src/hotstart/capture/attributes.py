"""The attributes of modules that a call replaces."""

from __future__ import annotations

from typing import Any

import torch

from hotstart.errors import CaptureError
from hotstart.model import ModelIndex


class ModuleAttributes:
    """The attributes of a model's modules, as they are before a replay."""

    def __init__(self, index: ModelIndex) -> None:
        self._modules = {path: m for path, m in index.modules.items() if index.path_of(m) == path}
        self._before = {path: [*map(dict, _held(m))] for path, m in self._modules.items()}
        held = (one for module in self._modules.values() for one in (module, *_held(module)))
        self._own = set(map(id, held))

    def covers(self, obj: object) -> bool:
        """Whether a change of an object is a change of attributes of modules."""
        return id(obj) in self._own

    def replaced(self) -> list[tuple[str, str, Any]]:
        """Path of the module, name and new value of every attribute that is another one by now.

        Raises:
            CaptureError: an attribute was deleted, or registered anew.
        """
        found: list[tuple[str, str, Any]] = []
        for path, module in self._modules.items():
            before, after = self._before[path], _held(module)
            owner = path or "the model"
            gone = {name for held in before for name in held}.difference(*after)
            if gone:
                names = ", ".join(f"{owner}.{name}" for name in sorted(gone))
                raise CaptureError(
                    f"forward deletes {names}. Set it to None, or move the change out of forward."
                )
            for old, new in zip(before, after, strict=True):
                for name, value in new.items():
                    if name not in old and new is not vars(module):
                        raise CaptureError(
                            f"forward registers {name!r} with {owner}. Do so in __init__, or call "
                            "the model once before it is compiled."
                        )
                    if name not in old or old[name] is not value:
                        found.append((path, name, value))
        return found

    def restore(self) -> None:
        """Put everything back."""
        for path, module in self._modules.items():
            for live, saved in zip(_held(module), self._before[path], strict=True):
                for name in live.keys() - saved.keys():
                    del live[name]
                for name, value in saved.items():
                    if live.get(name) is not value:
                        live[name] = value


def _held(module: torch.nn.Module) -> tuple[dict[str, Any], ...]:
    """The dicts that keep what a module holds, besides other modules."""
    return vars(module), module._parameters, module._buffers
