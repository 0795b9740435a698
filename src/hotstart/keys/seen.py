"""Whether what a program was compiled for is still so, besides its modules and their tensors."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hotstart.keys.records import Change, Seen, described
from hotstart.objects import Describer, digest, tensor_text
from hotstart.runtime.structure import follow, inside, leads
from hotstart.tensors import Finder, Model, contents

_MISSING = "nothing"


def changes(model: Model, seen: Iterable[Seen]) -> Iterator[Change]:
    """Everything that is not what it was when it was seen."""
    look = Look(model)
    for one in seen:
        found = look.text(one)
        if found != one.text or not found:
            yield described(one), one.text or "what nothing can be said of", found


class Look:
    """Looks at what programs were compiled for, as it is now."""

    def __init__(self, model: Model) -> None:
        self._describer = Describer()
        self._finder = Finder(model)

    def text(self, one: Seen) -> str:
        """What it is now, as text; empty if nothing can be said of it."""
        if one.start == "environment":
            return environment_text(one.name)
        start = self._finder.module(one.name) if one.start == "model" else _python(one.name)
        try:
            if one.kind in ("attribute", "own", "contains"):
                return "there" if leads(start, one.kind, one.steps) else "not there"
            return self._of(one.kind, follow(start, one.steps))
        except (AttributeError, LookupError, TypeError):
            return _MISSING

    def _of(self, kind: str, value: Any) -> str:
        describer = self._describer
        match kind:
            case "length":
                return str(len(value))
            case "keys":
                return f"keys {digest(describer.member_text(key) for key in value)}"
            case "class":
                return describer.class_text(type(value))
            case "function" if hasattr(value, "__qualname__"):
                return describer.function_text(value)
            case "tensor" if isinstance(value, torch.Tensor):
                return contents_text(value)
            case "value" | "inside":
                with contextlib.suppress(TypeError):
                    return describer.text(value) or inside(value)
        return ""


def contents_text(tensor: torch.Tensor) -> str:
    """A tensor with its contents; empty if it has none to read."""
    found = contents(tensor)
    if found is None:
        return ""
    return f"{tensor_text(tensor)} {hashlib.blake2b(found, digest_size=16).hexdigest()}"


def environment_text(name: str) -> str:
    """What a variable of the environment is."""
    return repr(os.environ[name]) if name in os.environ else _MISSING


def _python(name: str) -> Any:
    """A Python module; one that forward itself imports may not be imported yet."""
    with contextlib.suppress(ImportError, ValueError):
        return sys.modules.get(name) or importlib.import_module(name)
    return None
