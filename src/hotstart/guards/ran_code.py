"""The code that a trace ran, and guards on it.

A method is found by its class, any other function by its name in a Python module.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hotstart.guards.functions import codes_of, definers, module_name
from hotstart.guards.sources import file_of, is_given_file
from hotstart.guards.structure import Look, follow
from hotstart.model import Model
from hotstart.records.guards import Guard, Kind, Seen, Step


class Ran:
    """The code that a trace ran, and what of it no guard covers so far.

    Attributes:
        codes: all of it, without torch's and Python's own.
        left: what is not covered.
    """

    def __init__(self, codes: Iterable[types.CodeType]) -> None:
        self.codes = frozenset(code for code in codes if not is_given_file(code.co_filename))
        self.left = set(self.codes)
        self._methods: dict[type, tuple[str, ...]] = {}

    def cover(self, *values: Any) -> bool:
        """Tell whether code ran that is in functions that some values are."""
        within = self.codes.intersection(set().union(*map(codes_of, values)))
        self.left -= within
        return bool(within)

    def methods(self, cls: type) -> tuple[str, ...]:
        """The names of a class under which code is found that ran."""
        if cls not in self._methods:
            names = dict.fromkeys(name for base in cls.__mro__ for name in vars(base))
            defined = {n: [vars(b)[n] for b in definers(cls, n)] for n in names}
            ran = (name for name, values in defined.items() if values and self.cover(*values))
            self._methods[cls] = tuple(ran)
        return self._methods[cls]


def code_guards(
    look: Look, ran: Ran, start: Any, kind: Kind, steps: tuple[Step, ...]
) -> Iterator[Guard]:
    """Guards on methods of an object whose class was read; a function's own guard has its code."""
    with contextlib.suppress(AttributeError, LookupError, TypeError):
        value = follow(start, steps)
        if kind == "function":
            ran.cover(value)
        elif kind == "class":
            yield from method_guards(look, ran, value, steps)


def method_guards(look: Look, ran: Ran, value: Any, steps: tuple[Step, ...]) -> Iterator[Guard]:
    """Yield guards on the methods of an object's class that ran, and on a patched torch forward."""
    names = ran.methods(type(value))
    if isinstance(value, torch.nn.Module) and not definers(type(value), "forward"):
        names = ("forward", *names)
    for name in names:
        way: tuple[Step, ...] = (("class", ""), ("attribute", name))
        yield Guard((*steps, *way), "method", look.text("method", way, value))


def target_guard(look: Look, ran: Ran, target: Model) -> Iterator[Seen]:
    """The guard on a function that is compiled; methods are found with their object's class."""
    if not isinstance(target, torch.nn.Module | types.MethodType) and ran.cover(target):
        yield Seen("target", "", Guard((), "code", look.text("code", (), target)))


def named_guards(look: Look, ran: Ran) -> Iterator[Seen]:
    """Guards on functions that are found by name in a Python module.

    Functions are looked for in all of memory only where their code does not say where they are.
    """
    for find in (_names_in_files, _names_in_memory):
        for module, name in sorted(find(ran.left)):
            steps: tuple[Step, ...] = tuple(("attribute", part) for part in name.split("."))
            with contextlib.suppress(AttributeError, LookupError, TypeError):
                if ran.cover(follow(sys.modules[module], steps)):
                    text = look.text("code", steps, sys.modules[module])
                    yield Seen("python", str(module_name(module)), Guard(steps, "code", text))


def _names_in_files(codes: Iterable[types.CodeType]) -> set[tuple[str, str]]:
    """Python module and qualified name of code, or of the function around it, by its file."""
    by_file: dict[str, list[str]] = {}
    for code in codes:
        by_file.setdefault(code.co_filename, []).append(_outermost(code.co_qualname))
    if not by_file:
        return set()
    modules = sys.modules.copy().items()  # others may be importing
    files = ((name, file_of(module)) for name, module in modules)
    return {(module, name) for module, file in files for name in by_file.get(file or "", ())}


def _names_in_memory(codes: Iterable[types.CodeType]) -> set[tuple[str, str]]:
    """Python module and qualified name of the functions that have some code.

    The code of a dataclass is of no file, and a decorator may give its function another name.
    """
    codes = list(codes)
    if not codes:
        return set()  # `get_referrers` looks at every object of the process
    holders = (h for h in gc.get_referrers(*codes) if isinstance(h, types.FunctionType))
    return {
        (h.__module__, _outermost(h.__qualname__)) for h in holders if h.__module__ in sys.modules
    }


def _outermost(name: str) -> str:
    return name.partition(".<locals>")[0]
