"""Describe Python objects as named texts that are the same in every process.

Two objects get the same texts only if code that reads them cannot tell them apart, as far as
Python lets one look: constants by value, functions by code, defaults and closures, classes by name,
other objects by class and attributes. What runs of a class is compared by itself. Tensors count by
everything but their contents. No address, path, file name or line number is in a text.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from hotstart.errors import StoreError
from hotstart.guards.codes import code_digest, codes_in
from hotstart.records.nested import attributes_of

MOST = 200_000
"""An object that leads to more others than this is not looked at."""

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), type(...))
_BASES = (int, float, complex, str, bytes)
"""Constants that classes of others derive from."""

_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
          torch.finfo, torch.iinfo)  # fmt: skip
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_PYTHON, _FIXED = 1 << 9, 1 << 8
"""Flags of classes: made at run time, as Python's class statement does; and unchangeable."""

_LONG = 1000
"""Containers of more items are not searched for functions."""

_GIVEN = {"torch", *sys.stdlib_module_names}
_OPAQUE = (types.ModuleType, re.Pattern, pathlib.PurePath)

Parts = Iterator[tuple[str, str]]


class Unknowable(StoreError):
    """An object that has no description which is the same in every process."""


class Describer:
    """Says what objects are. Objects met before are named, so that sharing and cycles show."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []  # ids must not be reused while names refer to them
        self._texts: dict[Any, str] = {}
        self._cyclic_texts: dict[Any, str] = {}
        self._on_the_way: set[Any] = set()
        self._cyclic = False

    def describe(self, name: str, value: Any) -> Parts:
        """Texts for a value and for everything it holds, by name.

        Raises:
            Unknowable: it holds something without such a description.
        """
        short = self.text(value)
        if short is not None:
            yield name, short
            return
        known = self._names.get(id(value))
        if known is not None:
            yield name, f"is {known}"
            return
        if len(self._names) >= MOST:
            raise Unknowable(f"{name}: more than {MOST} objects hang on it")
        self._names[id(value)] = name
        self._kept.append(value)
        yield from self._inside(name, value)

    def text(self, value: Any) -> str | None:
        """A value in one line; None for one that is described by what it holds."""
        kind = type(value)
        if kind in _CONSTANTS:
            return repr(value)
        if isinstance(value, enum.Enum):
            return f"{kind.__module__}.{kind.__qualname__}.{value.name}"
        if isinstance(value, torch.Tensor):
            return tensor_text(value)
        if isinstance(value, _TORCH):
            return f"{kind.__name__} {value}"
        if isinstance(value, _OPAQUE):
            return f"{kind.__name__} {getattr(value, '__name__', value)}"
        if isinstance(value, type):
            return class_name(value)
        if isinstance(value, types.CodeType):
            return f"code {code_digest(value)}"
        if isinstance(value, staticmethod | classmethod | property):
            return self.member_text(value)
        if isinstance(value, (*_BASES, range)) and not attributes(value):
            return self._kind_text(value)
        return None

    def _inside(self, name: str, value: Any) -> Parts:
        kind = type(value)
        if isinstance(value, types.MethodType):
            yield name, f"method {self.member_text(value.__func__)}"
            yield from self.describe(f"{name}.__self__", value.__self__)
        elif isinstance(value, _FUNCTIONS):
            yield name, self.function_text(value)
        elif isinstance(value, functools.partial):
            yield name, "partial"
            yield from self.describe(f"{name}.func", value.func)
            yield from self.describe(f"{name}.args", (value.args, value.keywords))
        elif isinstance(value, Mapping):
            yield name, f"{class_name(kind)} of {len(value)}"
            for key, entry in value.items():
                yield from self.describe(f"{name}[{self.member_text(key)}]", entry)
        elif isinstance(value, list | tuple):
            yield name, f"{class_name(kind)} of {len(value)}"
            for index, entry in enumerate(value):
                yield from self.describe(f"{name}[{index}]", entry)
        elif isinstance(value, set | frozenset):
            texts = sorted(map(self.member_text, value))
            yield name, f"{class_name(kind)} {{{', '.join(texts)}}}"
        elif isinstance(value, slice):
            yield from self.describe(name, ("slice", value.start, value.stop, value.step))
        else:
            yield name, self._kind_text(value)
            state = _hidden(value)
            if state is not None:
                yield from self.describe(f"{name} state", state)
        for attribute, held in attributes(value).items():
            yield from self.describe(f"{name}.{attribute}", held)

    def _kind_text(self, value: Any) -> str:
        """The class of an object, and what it is as a constant if its class derives from one."""
        plain = (base.__repr__(value) for base in (*_BASES, range) if isinstance(value, base))
        return " ".join((class_name(type(value)), *plain))

    def member_text(self, value: Any) -> str:
        """Describe any value in one line; an object by the name of its class."""
        if isinstance(value, staticmethod | classmethod):
            return f"{type(value).__name__} {self.member_text(value.__func__)}"
        if isinstance(value, property):
            return f"property {[self.member_text(f) for f in (value.fget, value.fset)]}"
        if isinstance(value, functools.cached_property):
            return f"property {self.member_text(value.func)}"
        if isinstance(value, types.MethodType) and not hasattr(value, "__qualname__"):
            return f"method {self.member_text(value.__func__)}"
        if isinstance(value, _FUNCTIONS):
            return self.function_text(value)
        if isinstance(value, list | tuple | set | frozenset | dict):
            return self._container(value)
        if isinstance(value, functools.partial):
            return f"partial {self._container([value.func, value.args, value.keywords])}"
        wrapped = getattr(value, "__dict__", {}).get("__wrapped__")
        if isinstance(wrapped, types.FunctionType):
            return f"{class_name(type(value))} of {self.member_text(wrapped)}"
        return self.text(value) or class_name(type(value))

    def _container(self, value: Any) -> str:
        def tokens() -> Iterator[str]:
            if isinstance(value, dict):
                for key, entry in value.items():
                    yield f"{self.member_text(key)}: {self.member_text(entry)}"
            else:
                items = map(self.member_text, value)
                yield from sorted(items) if isinstance(value, set | frozenset) else items

        self._kept.append(value)
        return self._known((id(value), "container"), type(value).__qualname__, tokens)

    def function_text(self, function: Any) -> str:
        """A function by its name, its code, its defaults and what it closes over."""
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
                    yield self.member_text(_content(cell))

        return self._known(function, name, tokens)

    def _known(self, value: Any, name: str, tokens: Callable[[], Iterable[str]]) -> str:
        """The text of an object that may contain itself: inside its own text it is only a name.

        A text with such a name depends on the object that the walk began at, so it is cached only
        for walks that begin there again.
        """
        if value in self._on_the_way:
            self._cyclic = True
            return name
        known = self._texts.get(value) or (not self._on_the_way and self._cyclic_texts.get(value))
        if known:
            return known
        outer, self._cyclic = self._cyclic, False
        self._on_the_way.add(value)
        hashed = digest(tokens())
        self._on_the_way.remove(value)
        text = f"{name} {hashed}" if hashed else name
        if not self._cyclic:
            self._texts[value] = text
        elif not self._on_the_way:
            self._cyclic_texts[value] = text
        self._cyclic = outer or (self._cyclic and bool(self._on_the_way))
        return text

    def method_text(self, cls: type, name: str) -> str:
        """List the functions of a name that a class and its bases define, in the order of bases."""
        known = self._texts.get((cls, name))
        if known is None:
            defined = (vars(base)[name] for base in definers(cls, name))
            known = self._texts[cls, name] = "; ".join(map(self.member_text, defined))
        return known


def attributes(value: Any) -> dict[str, Any]:
    """List what an object holds by name, in the order of the names."""
    fields = getattr(type(value), "__struct_fields__", None)  # of msgspec
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    held = attributes_of(value)
    if isinstance(value, torch.autocast):  # without the state that it restores, once it was entered
        held = {name: kept for name, kept in held.items() if not name.startswith("prev")}
    return dict(sorted(held.items()))


def _hidden(value: Any) -> Any:
    """Ask pickle for the parts of an object of a class that Python cannot look into."""
    flags = [cls.__flags__ for cls in type(value).__mro__ if cls is not object]
    if all(flag & _PYTHON and not flag & _FIXED for flag in flags):
        return None
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # noqa: BLE001  whatever it is, it cannot be said
        return None
    if isinstance(reduced, str):
        return reduced
    return [list(part) if isinstance(part, Iterator) else part for part in reduced]


def tensor_text(tensor: torch.Tensor) -> str:
    """A tensor without its contents."""
    kind = type(tensor).__qualname__
    layout = f"{list(tensor.shape)}"
    if tensor.layout is torch.strided:
        layout += f" strides {list(tensor.stride())}"
    return f"{kind} {tensor.dtype} {layout} {tensor.device} {tensor.requires_grad}"


def module_name(name: str | None) -> str | None:
    """The name of a Python module, for a script the one that it would be imported by."""
    if name not in ("__main__", "__mp_main__"):
        return name
    main = sys.modules.get(name)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return file.rpartition(os.sep)[2].removesuffix(".py") if file else name


def class_name(cls: type) -> str:
    """A class as text, whether or not it can be imported."""
    return f"{module_name(cls.__module__)}.{cls.__qualname__}"


def definers(cls: type, name: str) -> list[type]:
    """The class and its bases that define a name; not what is Python's or torch's own."""
    found = [base for base in cls.__mro__ if name in vars(base)]
    return [b for b in found if not (is_given(b.__module__) and is_given(_home(vars(b)[name])))]


def functions_in(value: Any) -> Iterator[types.FunctionType]:
    """The functions that something runs: itself, what it wraps, closes over and has as defaults."""
    waiting, met = [value], set()
    while waiting:
        held = waiting.pop()
        if id(held) in met:
            continue
        met.add(id(held))
        match held:
            case types.FunctionType():
                yield held
                waiting += held.__defaults__ or ()
                waiting += (held.__kwdefaults__ or {}).values()
                waiting += map(_content, held.__closure__ or ())
            case types.MethodType() | staticmethod() | classmethod():
                waiting.append(held.__func__)
            case property():
                waiting += [held.fget, held.fset]
            case functools.cached_property():
                waiting.append(held.func)
            case functools.partial():
                waiting += [held.func, *held.args, *held.keywords.values()]
            case list() | tuple() if len(held) < _LONG:
                waiting += held
            case dict() if len(held) < _LONG:
                waiting += held.values()
        if not isinstance(held, type | types.ModuleType):
            waiting.append(getattr(held, "__dict__", {}).get("__wrapped__"))


def codes_of(value: Any) -> set[types.CodeType]:
    """The code objects of these functions, with those that are defined in them."""
    return {code for f in functions_in(value) for code in codes_in(f.__code__)}


def digest(texts: Iterable[str]) -> str:
    """A short hash of texts in order; empty if there are none."""
    joined = "\n".join(texts)
    return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest() if joined else ""


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put in it yet
        return None


def _home(value: Any) -> str:
    """The module that a function of a class is from; for all else, as if it were Python's."""
    module = getattr(value, "__module__", None) if isinstance(value, types.FunctionType) else None
    return module if isinstance(module, str) else "builtins"


def is_given(module: str) -> bool:
    """Tell whether a module is part of Python or torch, whose versions are in every key."""
    return module.partition(".")[0] in _GIVEN
