"""Notice, in every call, that something a program was compiled for may have changed.

Most of it is kept in dicts: attributes of modules, of configurations and of classes. A dict that
was written to has another version, which one comparison in C tells for all of them. What has no
version is compared by identity: variables of Python modules, of which others change all the time;
attributes that a program sets itself; cells of closures, items of lists. A change is only a reason
to look again: `guards.check` says whether it matters.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import os
import types
from collections.abc import Callable, Iterable, Mapping, Set
from itertools import chain, repeat
from operator import is_
from typing import Any

import torch

from hotstart import _torch
from hotstart.guards.objects import definers, functions_in
from hotstart.guards.structure import follow
from hotstart.records.guards import Guard

MOST = 200
"""So many objects inside of one that was read as a whole are watched."""

_MISSING = object()
_REGISTERED = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, type, types.ModuleType,
          torch.Tensor, torch.dtype, torch.device)  # fmt: skip


class Watch:
    """What is looked at in every call.

    Args:
        restless: dicts, by identity, that change all the time without that anything follows.
    """

    def __init__(self, restless: Set[int]) -> None:
        self._restless = restless
        self._mappings: dict[int, dict[Any, Any]] = {}
        self._entries: dict[tuple[int, Any], tuple[dict[Any, Any], Any]] = {}
        self._attributes: dict[tuple[int, str], tuple[Any, str]] = {}
        self._keyed: dict[int, dict[Any, Any]] = {}
        self._lists: dict[int, list[Any]] = {}
        self._sets: dict[int, set[Any]] = {}
        self._empty: list[dict[Any, Any]] = []
        self._objects: list[Any] = []
        self._looked: dict[int, Any] = {}  # kept, so that no other object gets its identity
        self._quiet: set[type] = set()
        self._methods: set[tuple[type, str]] = set()

    # --- what to look at --------------------------------------------------------------------------

    def mapping(self, mapping: dict[Any, Any], *keys: Any) -> None:
        """A dict; where it is restless, only the entries of some keys."""
        if id(mapping) not in self._restless or not keys:
            self._mappings[id(mapping)] = mapping
            return
        for key in keys:
            self.entry(mapping, key)

    def keys(self, mapping: dict[Any, Any]) -> None:
        """The keys of a dict, whatever the values are."""
        if id(mapping) in self._restless:
            self._keyed[id(mapping)] = mapping
        else:
            self._mappings[id(mapping)] = mapping

    def entry(self, mapping: dict[Any, Any], key: Any) -> None:
        """One entry of a dict that others write to."""
        self._entries[id(mapping), key] = (mapping, key)

    def attribute(self, owner: Any, name: str) -> None:
        """An attribute that no dict keeps."""
        self._attributes[id(owner), name] = (owner, name)

    def empty(self, mapping: dict[Any, Any]) -> None:
        """A dict that has no entries, by custom."""
        if mapping:
            self.mapping(mapping)
        else:
            self._empty.append(mapping)

    def module(
        self, module: torch.nn.Module, names: Iterable[str], methods: Iterable[str]
    ) -> dict[str, Any]:
        """A module's class, hooks and own attributes; by these names where it is restless.

        Returns:
            Its own attributes.
        """
        held = vars(module)
        self.mapping(held, "forward", *names, *methods)
        for hooks in _HOOKS:
            self.empty(held[hooks])
        self._objects.append(module)
        self.cls(type(module))
        for name in methods:
            self._defined(type(module), name)
        return held

    def cls(self, cls: type, *names: str) -> None:
        """What a class and its bases define."""
        if cls in self._quiet:
            return
        dicts = [_dict_of(base) for base in cls.__mro__[:-1]]  # not `object`
        for defined in dicts:
            self.mapping(defined, "forward", *names)
        if self._restless.isdisjoint(map(id, dicts)):
            self._quiet.add(cls)

    def guard(self, start: Any, guard: Guard) -> None:
        """Everything on the way to what a guard is about, and that."""
        held = start
        if guard.kind == "method":
            self._method(start, guard)
            return
        leads = guard.kind in ("attribute", "own", "contains")
        try:
            for step in guard.steps[: len(guard.steps) - leads]:
                self._step(held, *step)
                held = follow(held, (step,))
            if leads:
                self._place(held, *guard.steps[-1])
                return
        except (AttributeError, LookupError, TypeError):
            return  # whatever it might be found in is watched
        match guard.kind:
            case "length" | "keys":
                self._keys(held)
            case "function" | "code":
                self._function(held)
            case "value" | "inside":
                self._inside(held)
            case "tensor" if isinstance(held, torch.Tensor) and not held.is_inference():
                self.attribute(held, "_version")

    def cell(self, cells: Mapping[str, types.CellType], guard: Guard) -> None:
        """A variable that a function closes over, and the way from there as with `guard`."""
        (_, name), *others = guard.steps
        cell = cells.get(str(name))
        if cell is not None:
            self.attribute(cell, "cell_contents")
            if is_filled(cell):
                self.guard(cell.cell_contents, Guard(tuple(others), guard.kind, guard.text))

    def environment(self, name: str) -> None:
        """A variable of the environment."""
        environ: Any = os.environ
        self.entry(environ._data, environ.encodekey(name))

    # --- how --------------------------------------------------------------------------------------

    def _method(self, start: Any, guard: Guard) -> None:
        *way, _, (_, name) = guard.steps
        with contextlib.suppress(AttributeError, LookupError, TypeError):
            for step in way:
                self._step(start, *step)
                start = follow(start, (step,))
            self._defined(type(start), str(name))

    def _defined(self, cls: type, name: str) -> None:
        """The functions that a class and its bases define under a name."""
        if (cls, name) not in self._methods:
            self._methods.add((cls, name))
            self.cls(cls, name)
            for base in definers(cls, name):
                self._function(vars(base)[name])

    def _step(self, held: Any, how: str, name: Any) -> None:
        match how:
            case "attribute":
                self._attribute(held, str(name))
            case "item" if isinstance(held, dict):
                self.mapping(held, name)
            case "item" | "key" | "entry":
                self._whole(held)

    def _attribute(self, held: Any, name: str) -> None:
        if isinstance(held, types.ModuleType):
            self.entry(vars(held), name)
        elif isinstance(held, type):
            self.cls(held, name)
        elif isinstance(held, torch.nn.Module):
            for registered in _REGISTERED:
                self.mapping(vars(held)[registered], name)
            if name not in _REGISTERED:
                self.mapping(vars(held), name)
                self.cls(type(held), name)
        elif isinstance(held, types.FunctionType | types.CellType | types.MethodType):
            self.attribute(held, name)
        elif isinstance(getattr(held, "__dict__", None), dict):
            self.mapping(vars(held), name)
            self.cls(type(held), name)
        elif type(held).__module__ != "builtins":  # of one with slots
            self.attribute(held, name)

    def _place(self, held: Any, how: str, name: Any) -> None:
        """Where it shows whether there is such an attribute or item."""
        if how != "attribute":
            self._keys(held)
            return
        if isinstance(held, torch.nn.Module):
            for registered in _REGISTERED:
                self.keys(vars(held)[registered])
        if isinstance(getattr(held, "__dict__", None), dict):
            self.keys(vars(held))
            self.cls(type(held), name)
        else:
            self._attribute(held, name)

    def _keys(self, held: Any) -> None:
        """What is in a container, for a dict its keys."""
        if isinstance(held, dict):
            self.keys(held)
        else:
            self._whole(held)

    def _whole(self, held: Any) -> None:
        """All that a container holds."""
        match held:
            case dict():
                self.mapping(held)
            case list():
                self._lists[id(held)] = held
            case set():
                self._sets[id(held)] = held

    def _inside(self, value: Any) -> None:
        """All that hangs on an object, up to a limit."""
        waiting, left = [value], MOST
        while waiting and left:
            held = waiting.pop()
            if isinstance(held, _PLAIN) or id(held) in self._looked:
                continue
            left -= 1
            self._looked[id(held)] = held
            self._whole(held)
            match held:
                case dict():
                    waiting += held.values()
                case list() | tuple() | set() | frozenset():
                    waiting += held
                case types.FunctionType() | types.MethodType():
                    self._function(held)
            attributes = getattr(held, "__dict__", None)
            if isinstance(attributes, dict):
                self.mapping(attributes)
                waiting += attributes.values()

    def _function(self, value: Any) -> None:
        """Code, defaults and closure of a function, and of functions in these."""
        for held in functions_in(value):
            if id(held) in self._looked or str(held.__module__).startswith("torch."):
                continue
            self._looked[id(held)] = held
            for name in ("__code__", "__defaults__", "__kwdefaults__"):
                self.attribute(held, name)
            if held.__kwdefaults__:
                self.mapping(held.__kwdefaults__)
            for cell in held.__closure__ or ():
                self.attribute(cell, "cell_contents")

    # --- looking ----------------------------------------------------------------------------------

    def sealed(self) -> Sealed:
        """What was given, as it is now."""
        return Sealed(
            list(self._mappings.values()),
            list(self._entries.values()),
            list(self._attributes.values()),
            list(self._keyed.values()),
            list(self._lists.values()),
            list(self._sets.values()),
            self._empty,
            self._objects,
        )


class Sealed:
    """Things as they were at one time.

    Attributes:
        mappings: the dicts, by identity, of which any change shows.
    """

    def __init__(
        self,
        mappings: list[dict[Any, Any]],
        entries: list[tuple[dict[Any, Any], Any]],
        attributes: list[tuple[Any, str]],
        keyed: list[dict[Any, Any]],
        lists: list[list[Any]],
        sets: list[set[Any]],
        empty: list[dict[Any, Any]],
        objects: list[Any],
    ) -> None:
        self.mappings = frozenset(map(id, mappings))
        self._versions = _torch.MappingWatch(mappings)
        self._empty = empty
        self._checks: list[Callable[[], bool]] = [self._versions.unchanged]
        if entries:
            self._checks.append(_same(dict.get, *zip(*entries, strict=True)))
        if attributes:
            self._checks.append(_same(getattr, *zip(*attributes, strict=True)))
        if objects:
            kinds = list(map(type, objects))
            self._checks.append(lambda: all(map(is_, map(type, objects), kinds)))
        if keyed:
            keys = list(map(tuple, keyed))
            self._checks.append(lambda: list(map(tuple, keyed)) == keys)
        if lists:
            self._checks.append(_same_items(lists))
        if sets:
            copies = [frozenset(each) for each in sets]
            self._checks.append(lambda: sets == copies)

    def unchanged(self) -> bool:
        """Whether everything is as it was."""
        if any(self._empty):
            return False
        try:
            return all(check() for check in self._checks)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False  # a cell was emptied, or a list changed meanwhile

    def changed(self) -> list[dict[Any, Any]]:
        """The dicts that were written to."""
        return self._versions.changed()


def _same(
    look: Callable[..., Any], owners: tuple[Any, ...], names: tuple[Any, ...]
) -> Callable[[], bool]:
    """Whether looking for names in their owners finds the very objects that are found now."""
    found = list(map(look, owners, names, repeat(_MISSING)))
    return lambda: all(map(is_, map(look, owners, names, repeat(_MISSING)), found))


def _same_items(lists: list[list[Any]]) -> Callable[[], bool]:
    lengths = list(map(len, lists))
    items = list(chain.from_iterable(lists))
    return lambda: (
        list(map(len, lists)) == lengths and all(map(is_, chain.from_iterable(lists), items))
    )


def is_filled(cell: types.CellType) -> bool:
    """Whether a variable that is closed over has a value."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _dict_of(cls: type) -> dict[str, Any]:
    """The dict behind the read-only one that Python shows of a class, which alone has a version."""
    found: dict[str, Any]
    (found,) = gc.get_referents(vars(cls))
    return found
