"""Whether what a program was compiled for is still so, besides its modules and their tensors."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hotstart.keys.records import Change, Seen
from hotstart.objects import Describer, Unknowable, digest, tensor_text
from hotstart.runtime.structure import follow
from hotstart.tensors import Finder, Model

_MISSING = "nothing"


def changes(model: Model, seen: Iterable[Seen]) -> Iterator[Change]:
    """Everything that is not what it was when it was seen. Imports nothing."""
    describer = Describer()
    finder = Finder(model)
    for one in seen:
        found = _found(describer, finder, one)
        if found != one.text:
            yield _written(one), one.text, found


def text_of(describer: Describer, kind: str, value: Any) -> str | None:
    """What counts of a value, as text; None if nothing can be said of it."""
    if kind == "length":
        return str(len(value)) if hasattr(value, "__len__") else None
    if kind == "class":
        return describer.class_text(type(value))
    if kind == "tensor":
        return contents_text(value) if isinstance(value, torch.Tensor) else None
    if kind == "function":
        return describer.function_text(value) if hasattr(value, "__qualname__") else None
    short = describer.text(value)
    if short is not None:
        return short
    try:
        return digest(f"{name} {text}" for name, text in Describer().describe("", value))
    except Unknowable:
        return None


def contents_text(tensor: torch.Tensor) -> str | None:
    """A tensor with its contents; None if it has none to read."""
    if tensor.device.type == "meta":
        return None
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    data = ctypes.string_at(plain.data_ptr(), plain.nbytes) if plain.nbytes else b""
    hashed = hashlib.blake2b(data, digest_size=16).hexdigest()
    return f"{tensor_text(tensor)} {hashed}"


def environment_text(name: str) -> str:
    """What a variable of the environment is."""
    return repr(os.environ[name]) if name in os.environ else _MISSING


def _found(describer: Describer, finder: Finder, one: Seen) -> str:
    if one.start == "environment":
        return environment_text(one.name)
    start = finder.module(one.name) if one.start == "model" else sys.modules.get(one.name)
    if start is None:
        return _MISSING
    try:
        value = follow(start, one.steps)
    except (AttributeError, LookupError, TypeError):
        return _MISSING
    return text_of(describer, one.kind, value) or _MISSING


def _written(one: Seen) -> str:
    steps = (f".{name}" if how == "attribute" else f"[{name!r}]" for how, name in one.steps)
    start = f"environment {one.name}" if one.start == "environment" else one.name or "model"
    text = start + "".join(steps)
    return f"len({text})" if one.kind == "length" else text
