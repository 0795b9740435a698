"""Find the functions that an object runs, and name where they and their classes are defined."""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from hotstart.guards.codes import codes_in

_LONG = 1000
"""Containers of more items are not searched for functions."""

_GIVEN = {"torch", *sys.stdlib_module_names}


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


def is_given(module: str) -> bool:
    """Tell whether a module is part of Python or torch, whose versions are in every key."""
    return module.partition(".")[0] in _GIVEN


def definers(cls: type, name: str) -> list[type]:
    """The class and its bases that define a name; not what is Python's or torch's own."""
    found = [base for base in cls.__mro__ if name in vars(base)]
    return [b for b in found if not (is_given(b.__module__) and is_given(_home(vars(b)[name])))]


def _home(value: Any) -> str:
    """The module that a function of a class is from; for all else, as if it were Python's."""
    module = getattr(value, "__module__", None) if isinstance(value, types.FunctionType) else None
    return module if isinstance(module, str) else "builtins"


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
                waiting += map(content_of, held.__closure__ or ())
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


def content_of(cell: Any) -> Any:
    """Read what a closure's cell holds; None before anything was put in it."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
