"""Describe Python objects in one line each, the same in every process.

Constants count by value, functions by code, defaults and closures, containers by their items, all
else by class. Tensors count by everything but their contents. No address, path, file name or line
number is in a text.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import pathlib
import re
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from hotstart.guards.codes import code_digest
from hotstart.guards.functions import class_name, content_of, definers, module_name
from hotstart.records.nested import attributes_of

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), type(...))
_BASES = (int, float, complex, str, bytes, range)
"""Constants that classes of others derive from, and ranges."""

_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
          torch.finfo, torch.iinfo)  # fmt: skip
_OPAQUE = (types.ModuleType, re.Pattern, pathlib.PurePath)


class OneLine:
    """Texts of objects; a function or container within its own text is a name."""

    def __init__(self) -> None:
        self._kept: list[Any] = []  # ids must not be reused while texts refer to them
        self._texts = _Texts()
        self._methods: dict[tuple[type, str], str] = {}

    def text(self, value: Any) -> str | None:
        """Describe a value by all that it is; None if that does not go in one line."""
        kind = type(value)
        if kind in _CONSTANTS:
            return repr(value)
        match value:
            case enum.Enum():
                return f"{kind.__module__}.{kind.__qualname__}.{value.name}"
            case torch.Tensor():
                return tensor_text(value)
            case type():
                return class_name(value)
            case types.CodeType():
                return f"code {code_digest(value)}"
            case staticmethod() | classmethod() | property():
                return self.member_text(value)
        if isinstance(value, _TORCH):
            return f"{kind.__name__} {value}"
        if isinstance(value, _OPAQUE):
            return f"{kind.__name__} {getattr(value, '__name__', value)}"
        if isinstance(value, _BASES) and not attributes(value):
            return kind_text(value)
        return None

    def member_text(self, value: Any) -> str:
        """Describe any value; an object by the name of its class."""
        match value:
            case staticmethod() | classmethod():
                return f"{type(value).__name__} {self.member_text(value.__func__)}"
            case property():
                return f"property {[self.member_text(f) for f in (value.fget, value.fset)]}"
            case functools.cached_property():
                return f"property {self.member_text(value.func)}"
            case types.MethodType() if not hasattr(value, "__qualname__"):
                return f"method {self.member_text(value.__func__)}"
            case types.FunctionType() | types.BuiltinFunctionType() | types.MethodType():
                return self.function_text(value)
            case list() | tuple() | set() | frozenset() | dict():
                return self._container_text(value)
            case functools.partial():
                return f"partial {self._container_text([value.func, value.args, value.keywords])}"
        wrapped = getattr(value, "__dict__", {}).get("__wrapped__")
        if isinstance(wrapped, types.FunctionType):
            return f"{class_name(type(value))} of {self.member_text(wrapped)}"
        return self.text(value) or class_name(type(value))

    def function_text(self, function: Any) -> str:
        """Describe a function by its name, its code, its defaults and what it closes over."""
        name = f"{module_name(getattr(function, '__module__', None))}.{function.__qualname__}"
        code = getattr(function, "__code__", None)
        if code is None or name.startswith("torch."):
            return name

        def tokens() -> Iterator[str]:
            yield code_digest(code)
            yield from map(self.member_text, function.__defaults__ or ())
            for key, value in sorted((function.__kwdefaults__ or {}).items()):
                yield f"{key} {self.member_text(value)}"
            for free, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
                if free != "__class__":  # of a method that calls super()
                    yield self.member_text(content_of(cell))

        return self._texts.of(function, name, tokens)

    def method_text(self, cls: type, name: str) -> str:
        """List the functions of a name that a class and its bases define, in the order of bases."""
        known = self._methods.get((cls, name))
        if known is None:
            defined = (vars(base)[name] for base in definers(cls, name))
            known = self._methods[cls, name] = "; ".join(map(self.member_text, defined))
        return known

    def _container_text(self, value: Any) -> str:
        def tokens() -> Iterator[str]:
            if isinstance(value, dict):
                for key, entry in value.items():
                    yield f"{self.member_text(key)}: {self.member_text(entry)}"
            else:
                items = map(self.member_text, value)
                yield from sorted(items) if isinstance(value, set | frozenset) else items

        self._kept.append(value)
        return self._texts.of((id(value), "container"), type(value).__qualname__, tokens)


class _Texts:
    """Texts of things that may lead to themselves: within its own text, one is only a name.

    A text with such a name depends on where the walk began, so it is kept only for walks that begin
    there again.
    """

    def __init__(self) -> None:
        self._everywhere: dict[Any, str] = {}
        self._as_start: dict[Any, str] = {}
        self._on_the_way: set[Any] = set()
        self._cyclic = False  # the text that is being written has such a name

    def of(self, key: Any, name: str, tokens: Callable[[], Iterable[str]]) -> str:
        """Return the text of a key: its name, and a hash of its tokens if there are any."""
        if key in self._on_the_way:
            self._cyclic = True
            return name
        known = self._everywhere.get(key) or (not self._on_the_way and self._as_start.get(key))
        if known:
            return known
        outer, self._cyclic = self._cyclic, False
        self._on_the_way.add(key)
        hashed = digest(tokens())
        self._on_the_way.remove(key)
        text = f"{name} {hashed}" if hashed else name
        if not self._cyclic:
            self._everywhere[key] = text
        elif not self._on_the_way:
            self._as_start[key] = text
        self._cyclic = outer or (self._cyclic and bool(self._on_the_way))
        return text


def attributes(value: Any) -> dict[str, Any]:
    """List what an object holds by name, in the order of the names."""
    fields = getattr(type(value), "__struct_fields__", None)  # of msgspec
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    held = attributes_of(value)
    if isinstance(value, torch.autocast):  # without the state that it restores, once it was entered
        held = {name: kept for name, kept in held.items() if not name.startswith("prev")}
    return dict(sorted(held.items()))


def kind_text(value: Any) -> str:
    """Describe an object by its class, and as a constant if its class derives from one."""
    plain = (base.__repr__(value) for base in _BASES if isinstance(value, base))
    return " ".join((class_name(type(value)), *plain))


def tensor_text(tensor: torch.Tensor) -> str:
    """A tensor without its contents."""
    kind = type(tensor).__qualname__
    layout = f"{list(tensor.shape)}"
    if tensor.layout is torch.strided:
        layout += f" strides {list(tensor.stride())}"
    return f"{kind} {tensor.dtype} {layout} {tensor.device} {tensor.requires_grad}"


def digest(texts: Iterable[str]) -> str:
    """A short hash of texts in order; empty if there are none."""
    joined = "\n".join(texts)
    return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest() if joined else ""
