"""Notice, in every call, that something a program was compiled for may have changed.

After a change `guards.compare` evaluates the guards again. `Watch` walks from modules and guards to
what may change and notes it in the tables of `Watched`; `Sealed` remembers how all of it was, and
compares. From cheap to dear, with what a call pays:

- `mappings`: dicts, by their version. Attributes of modules, configurations and classes are kept in
  dicts, so this is most of it; one comparison in C tells for all of them.
- `empties`: dicts without entries, by custom; whether they are empty, each.
- `objects`: modules, by class; one look at the type, each.
- `entries`: variables of Python modules and other dicts that change all the time, each by the
  identity of one value; a lookup, each.
- `attributes`: cells of closures, slots, code of functions, by identity; a `getattr`, each.
- `lists`: by length and the identity of the items; a step for every item.
- `keyed`, `sets`: by equal keys or items; a copy of the keys, or a comparison, with every call.
"""

from __future__ import annotations

import enum
import gc
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import chain, repeat
from operator import getitem, is_
from typing import Any

import torch

from hotstart._torch.running.watches import ContentsWatch, MappingWatch, watch_mappings
from hotstart.guards.functions import definers, functions_in
from hotstart.guards.structure import follow
from hotstart.records.guards import Guard, Step

Versions = MappingWatch | ContentsWatch

MOST = 200
"""So many objects inside of one that was read as a whole are watched."""

REGISTERED = ("_parameters", "_buffers", "_modules")
"""The dicts of a module in which other modules and tensors are registered."""

_NOT_WALKED = {"attribute": 1, "own": 1, "contains": 1, "method": 2}
"""Number of the last steps of a guard, by kind, that do not lead to what is noted."""

_MISSING = object()
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, type, types.ModuleType,
          torch.Tensor, torch.dtype, torch.device)  # fmt: skip


class Watched:
    """Tables of what is looked at in every call, by how it is looked at: see above.

    Args:
        restless: dicts, by identity, that change all the time without that anything follows.
    """

    def __init__(self, restless: Set[int]) -> None:
        self.restless = restless
        self.mappings: dict[int, dict[Any, Any]] = {}
        self.entries: dict[tuple[int, Any], tuple[dict[Any, Any], Any]] = {}
        self.attributes: dict[tuple[int, str], tuple[Any, str]] = {}
        self.keyed: dict[int, dict[Any, Any]] = {}
        self.lists: dict[int, list[Any]] = {}
        self.sets: dict[int, set[Any]] = {}
        self.empties: list[dict[Any, Any]] = []
        self.objects: list[Any] = []

    def mapping(self, mapping: dict[Any, Any], *keys: Any) -> None:
        """Note a dict; where it is restless, only the entries of some keys."""
        if id(mapping) not in self.restless or not keys:
            self.mappings[id(mapping)] = mapping
            return
        for key in keys:
            self.entry(mapping, key)

    def keys(self, mapping: dict[Any, Any]) -> None:
        """Note the keys of a dict, whatever the values are."""
        if id(mapping) in self.restless:
            self.keyed[id(mapping)] = mapping
        else:
            self.mappings[id(mapping)] = mapping

    def entry(self, mapping: dict[Any, Any], key: Any) -> None:
        """Note one entry of a dict that others write to."""
        self.entries[id(mapping), key] = (mapping, key)

    def attribute(self, owner: Any, name: str) -> None:
        """Note an attribute that no dict keeps."""
        self.attributes[id(owner), name] = (owner, name)

    def empty(self, mapping: dict[Any, Any]) -> None:
        """Note a dict that has no entries, by custom."""
        if mapping:
            self.mapping(mapping)
        else:
            self.empties.append(mapping)

    def whole(self, held: Any) -> None:
        """Note all that a container holds."""
        match held:
            case dict():
                self.mapping(held)
            case list():
                self.lists[id(held)] = held
            case set():
                self.sets[id(held)] = held


class Watch(Watched):
    """Walks from modules and guards to everything that they depend on, and notes it."""

    def __init__(self, restless: Set[int]) -> None:
        super().__init__(restless)
        self._looked: dict[int, Any] = {}  # kept, so that no other object gets its identity
        self._shared: dict[tuple[int, str, tuple[Step, ...]], Any] = {}
        self._quiet: set[type] = set()
        self._methods: set[tuple[type, str]] = set()

    # --- where to start ---------------------------------------------------------------------------

    def module(
        self, module: torch.nn.Module, names: Iterable[str], methods: Iterable[str]
    ) -> dict[str, Any]:
        """Note a module's class, hooks and own attributes; by these names where it is restless.

        Returns:
            Its own attributes.
        """
        held = vars(module)
        self.mapping(held, "forward", *names, *methods)
        for hooks in _HOOKS:
            self.empty(held[hooks])
        self.objects.append(module)
        self.cls(type(module), *names)
        for name in methods:
            self._defined(type(module), name)
        return held

    def cls(self, cls: type, *names: str) -> None:
        """Note what a class and its bases define."""
        if cls in self._quiet:
            return
        dicts = [_dict_of(base) for base in cls.__mro__[:-1]]  # not `object`
        for defined in dicts:
            self.mapping(defined, "forward", *names)
        if self.restless.isdisjoint(map(id, dicts)):
            self._quiet.add(cls)

    def guard(self, start: Any, guard: Guard) -> None:
        """Note the object that a guard is about, and every object on the way to it."""
        held = start
        way = len(guard.steps) - _NOT_WALKED.get(guard.kind, 0)
        try:
            for number, step in enumerate(guard.steps[:way]):
                if number == 1 and self._known(held, guard):
                    return
                self._step(held, *step)
                held = follow(held, (step,))
            if guard.kind in ("attribute", "own", "contains"):
                self._presence(held, *guard.steps[-1])
        except (AttributeError, LookupError, TypeError):
            return  # whatever it might be found in is watched
        match guard.kind:
            case "method":
                self._defined(type(held), str(guard.steps[-1][1]))
            case "length" | "keys":
                self._contents(held)
            case "function" | "code":
                self._function(held)
            case "value" | "inside":
                self._inside(held)
            case "tensor" if isinstance(held, torch.Tensor) and not held.is_inference():
                self.attribute(held, "_version")

    def _known(self, held: Any, guard: Guard) -> bool:
        """Tell whether another guard took the same steps from the same object."""
        asked = (id(held), guard.kind, guard.steps[1:])
        known = asked in self._shared
        self._shared[asked] = held  # so that no other object gets its identity
        return known

    def cell(self, cells: Mapping[str, types.CellType], guard: Guard) -> None:
        """Note a variable that a function closes over, and the way from there as with `guard`."""
        (_, name), *others = guard.steps
        cell = cells.get(str(name))
        if cell is not None:
            self.attribute(cell, "cell_contents")
            if is_filled(cell):
                self.guard(cell.cell_contents, Guard(tuple(others), guard.kind, guard.text))

    def environment(self, name: str) -> None:
        """Note a variable of the environment."""
        environ: Any = os.environ
        self.entry(environ._data, environ.encodekey(name))

    # --- steps ------------------------------------------------------------------------------------

    def _defined(self, cls: type, name: str) -> None:
        """Note the functions that a class and its bases define under a name."""
        if (cls, name) not in self._methods:
            self._methods.add((cls, name))
            self.cls(cls, name)
            for base in definers(cls, name):
                self._function(vars(base)[name])

    def _step(self, held: Any, how: str, name: Any) -> None:
        match how:
            case "attribute":
                self._found_at(held, str(name))
            case "item" if isinstance(held, dict):
                self.mapping(held, name)
            case "item" | "key" | "entry":
                self.whole(held)

    def _found_at(self, held: Any, name: str) -> None:
        """Note all that decides what an attribute is."""
        if isinstance(held, types.ModuleType):
            self.entry(vars(held), name)
        elif isinstance(held, type):
            self.cls(held, name)
        elif isinstance(held, torch.nn.Module):
            for registered in REGISTERED:
                self.mapping(vars(held)[registered], name)
            if name not in REGISTERED:
                self.mapping(vars(held), name)
                self.cls(type(held), name)
        elif isinstance(held, types.FunctionType | types.CellType | types.MethodType):
            self.attribute(held, name)
        elif isinstance(getattr(held, "__dict__", None), dict):
            self.mapping(vars(held), name)
            self.cls(type(held), name)
        elif type(held).__module__ != "builtins":  # of one with slots
            self.attribute(held, name)

    def _presence(self, held: Any, how: str, name: Any) -> None:
        """Note the dict or keys that show whether there is such an attribute or item."""
        if how != "attribute":
            self._contents(held)
            return
        if isinstance(held, torch.nn.Module):
            for registered in REGISTERED:
                self.keys(vars(held)[registered])
        if isinstance(getattr(held, "__dict__", None), dict):
            self.keys(vars(held))
            self.cls(type(held), name)
        else:
            self._found_at(held, name)

    def _contents(self, held: Any) -> None:
        """Note what is in a container, for a dict its keys."""
        if isinstance(held, dict):
            self.keys(held)
        else:
            self.whole(held)

    def _inside(self, value: Any) -> None:
        """Note everything that an object holds, up to a limit."""
        waiting, left = [value], MOST
        while waiting and left:
            held = waiting.pop()
            if isinstance(held, _PLAIN) or id(held) in self._looked:
                continue
            left -= 1
            self._looked[id(held)] = held
            self.whole(held)
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
        """Note code, defaults and closure of a function, and of functions in these."""
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


class Sealed:
    """A snapshot of what was noted so far.

    Attributes:
        mappings: the dicts, by identity, of which any change shows.
        checks: all of them hold as long as everything is as it was; see `all_hold`.
        unchanged: tells whether they do.
    """

    def __init__(self, watched: Watched) -> None:
        self.mappings = frozenset(watched.mappings)
        self._versions = watch_mappings(list(watched.mappings.values()))
        self.checks = tuple(_checks(watched, self._versions))
        self.unchanged = all_hold(self.checks)

    def changed(self) -> list[dict[Any, Any]]:
        """The dicts that were written to."""
        return self._versions.changed()


def all_hold(checks: Iterable[Callable[[], bool]]) -> Callable[[], bool]:
    """Make one function of many, which runs in every call.

    A check that cannot look, since a cell was emptied or a list changed meanwhile, does not hold.
    """
    held = tuple(checks)

    def hold() -> bool:
        try:
            for check in held:
                if not check():
                    return False
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False
        return True

    return hold


def _checks(watched: Watched, versions: Versions) -> Iterator[Callable[[], bool]]:
    """Make a check for each table that has something in it."""
    if empties := watched.empties:
        yield lambda: not any(empties)
    if watched.mappings:
        yield versions.unchanged
    if watched.entries:
        yield _same(dict.get, *zip(*watched.entries.values(), strict=True))
    if watched.attributes:
        yield _same(_attribute, *zip(*watched.attributes.values(), strict=True))
    if objects := watched.objects:
        kinds = list(map(type, objects))
        yield lambda: all(map(is_, map(type, objects), kinds))
    if keyed := list(watched.keyed.values()):
        keys = list(map(tuple, keyed))
        yield lambda: list(map(tuple, keyed)) == keys
    if lists := list(watched.lists.values()):
        yield _same_items(lists)
    if sets := list(watched.sets.values()):
        copies = [frozenset(each) for each in sets]
        yield lambda: sets == copies


def _same(
    look: Callable[..., Any], owners: tuple[Any, ...], names: tuple[Any, ...]
) -> Callable[[], bool]:
    """Tell whether looking for names in their owners finds the very objects that are found now."""
    found = list(map(look, owners, names, repeat(_MISSING)))
    # A dict of a class of its own may make up what is missing when it is asked for an item.
    may_make_up = look is dict.get and not set(map(type, owners)) <= {dict}
    if may_make_up or any(each is _MISSING for each in found):
        return lambda: all(map(is_, map(look, owners, names, repeat(_MISSING)), found))
    there = getitem if look is dict.get else getattr  # which raise where they find nothing
    return lambda: all(map(is_, map(there, owners, names), found))


def _attribute(owner: Any, name: str, default: object) -> Any:
    try:
        return getattr(owner, name, default)
    except ValueError:  # of a variable that is closed over and has no value
        return default


def _same_items(lists: list[list[Any]]) -> Callable[[], bool]:
    lengths = list(map(len, lists))
    items = list(chain.from_iterable(lists))
    return lambda: (
        list(map(len, lists)) == lengths and all(map(is_, chain.from_iterable(lists), items))
    )


def is_filled(cell: types.CellType) -> bool:
    """Tell whether a variable that is closed over has a value."""
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
