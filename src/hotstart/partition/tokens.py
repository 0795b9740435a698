"""Tokens: values as nested text and numbers, to be hashed.

Every input of a compiler has a token: constants of a graph, settings, classes.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import struct
from collections.abc import Mapping
from typing import Any

import torch

from hotstart._torch.graphs.symbols import is_fake
from hotstart._torch.inductor.compile_fx import pass_token
from hotstart.errors import OptionsError
from hotstart.model import contents

Token = str | int | tuple["Token", ...]
"""The identity of a value; code cannot tell values of equal tokens apart."""


def import_path(obj: Any) -> tuple[str, str] | None:
    """Find the (module, qualified name) that `obj` can be imported by; None if there is none."""
    qualified = getattr(obj, "__qualname__", None)
    short = getattr(obj, "__name__", None)
    home = getattr(obj, "__module__", None)
    for module in (home, *_MODULES):
        for name in dict.fromkeys((qualified, short)):
            if module and name and _lookup(module, name) is obj:
                return module, name
    return None


_MODULES = (
    "torch",
    "torch._C._nn",
    "torch._C._special",
    "torch._C._fft",
    "torch._C._linalg",
    "torch.nn.functional",
)
"""Modules to look in for functions whose `__module__` is not set."""


def _lookup(module: str, name: str) -> Any:
    found = _import(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        parent, _, last = name.rpartition(".")
        return getattr(importlib.import_module(parent), last, None) if parent else None


def constant_token(value: Any) -> Token:
    """Describe a constant with its type; one of an unknown type by its identity."""
    kind = type(value).__qualname__
    if isinstance(value, enum.Enum):
        return ("enum", type(value).__module__, kind, value.name)
    if isinstance(value, bool | int | str) or value is None or value is ...:
        return (kind, repr(value))
    if isinstance(value, float):
        return (kind, struct.pack("<d", value).hex())
    if isinstance(value, complex):
        return (kind, struct.pack("<dd", value.real, value.imag).hex())
    if isinstance(value, bytes):
        return (kind, value.hex())
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format | range):
        return (kind, str(value))
    if callable(value) and (path := import_path(value)) is not None:
        return ("function", *path)
    return ("object", kind, id(value))


def setting_token(value: Any) -> Token:
    """Identify a setting: a custom pass by its `uuid()`, containers item by item.

    Raises:
        OptionsError: a custom pass without a `uuid()`.
    """
    if isinstance(value, Mapping):
        return ("dict", *((str(k), setting_token(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(setting_token, value))
    token = pass_token(value)
    if token is not None:
        return ("pass", type(value).__qualname__, token)
    known = constant_token(value)
    if isinstance(known, tuple) and known[0] == "object":
        raise OptionsError(
            f"inductor: {value!r} has no uuid(), so builds with it cannot be told apart. "
            "Derive it from torch._inductor.custom_graph_pass.CustomGraphPass."
        )
    return known


def constant(tensor: torch.Tensor) -> Token:
    """Hash a constant tensor's values; use its identity where they cannot be read."""
    found = None if is_fake(tensor) else contents(tensor)
    return ("object", id(tensor)) if found is None else hash_bytes(found)


def is_portable(token: Token) -> bool:
    """Tell whether tokens mean the same in every process.

    They do not if an identity is among them, or if a node calls something that did not come with
    torch or Python: a name does not identify its version.
    """
    if not isinstance(token, tuple):
        return True
    match token:
        case ("object", *_):
            return False
        case ("op", str(name)):
            return came_with_torch(name)
        case ("function" | "enum", str(module), *_):
            return module.partition(".")[0] in _GIVEN
    return all(map(is_portable, token))


def came_with_torch(operator: str) -> bool:
    """Tell whether an operator came with torch, so that its name identifies it."""
    return operator.partition("::")[0] in _NAMESPACES or "::" not in operator


_NAMESPACES = frozenset({"aten", "prims", "prim", "mkldnn", "mkl", "quantized", "onednn",
                         "_c10d_functional", "_c10d_functional_autograd"})  # fmt: skip
_GIVEN = frozenset({"torch", "operator", "_operator", "math", "builtins"})


def hash_token(token: Token) -> str:
    """Hash tokens."""
    return hash_bytes(repr(token).encode())


def hash_bytes(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()
