"""The Python state of a model: found before a call, compared and put back after it."""

from __future__ import annotations

import collections
import functools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from hotstart._torch.dynamo.fake_arguments import has_memory
from hotstart._torch.graphs.symbols import is_fake
from hotstart.first_call.snapshot import Snapshot
from hotstart.model import Model, roots
from hotstart.records.nested import slot_names

_CONTAINERS = (dict, list, set, collections.deque)
_HELD = (tuple, frozenset, *_CONTAINERS)

_ARRAY = 1 << 24
"""Bound on the bytes of an array that is copied."""

_FOREIGN = frozenset({"builtins", "torch", "numpy", "logging", "threading", "weakref", "typing"})
"""Packages whose objects and variables keep no state of a model."""


@dataclass(frozen=True)
class Changes:
    """Changes that a call has left in a model, by contents.

    Attributes:
        entries: owner and name of attributes, buffers and parameters among them; container and key
            or number of its entries, or None where all of it changed.
        names: where they are.
    """

    entries: tuple[tuple[Any, Any], ...]
    names: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.entries)


@dataclass(frozen=True)
class _KeptTensor:
    """A tensor with its memory, whatever that holds; None for one of a lazy module."""

    name: str
    tensor: torch.Tensor
    cls: type
    memory: torch.Tensor | None

    def changed(self) -> bool:
        """Tell whether it has other memory, or got some."""
        if type(self.tensor) is not self.cls:
            return True
        old = self.memory
        same = old is None or (self.tensor.dtype == old.dtype and self.tensor.is_set_to(old))
        return not same

    def put_back(self) -> None:
        """Give it the memory that it had."""
        if self.memory is None:
            self.tensor.data = torch.empty(0, dtype=self.tensor.dtype, device=self.tensor.device)
        self.tensor.__class__ = self.cls
        if self.memory is not None:
            self.tensor.data = self.memory


@dataclass(frozen=True)
class _KeptArray:
    """An array of numpy's, with a copy of what it held."""

    name: str
    array: Any
    before: Any

    def changed(self) -> bool:
        """Tell whether it holds other bytes."""
        return bool(self.array.tobytes() != self.before.tobytes())

    def put_back(self) -> None:
        """Undo what was written to it."""
        self.array[...] = self.before


class ModelState:
    """The state of everything that a model leads to, as it is now.

    That is its modules' attributes, classes and tensors' memory, whatever objects, containers and
    closures these lead to; attributes of their classes; and variables of the Python modules that
    define them, with the containers in these. The values of tensors are no part of it.
    """

    def __init__(self, model: Model) -> None:
        self._held: list[tuple[str, Snapshot]] = []
        self._classes: list[tuple[str, Any, type]] = []
        self._tensors: list[_KeptTensor] = []
        self._of_classes: list[tuple[str, type, dict[str, Any]]] = []
        self._registries: dict[int, torch.nn.Module] = {}
        self._scopes: set[int] = set()
        self._enclosed: set[int] = set()
        self._arrays: list[_KeptArray] = []
        self._seen: set[int] = set()
        self._kept_alive: list[Any] = []
        self._walk([(model, "", False), *((m, path, False) for path, m in roots(model).items())])

    def changed(self) -> list[str]:
        """The names of what is not as it was."""
        names = [n for name, held in self._held if held.changed() for n in _changed(name, held)]
        names += [name for name, obj, cls in self._classes if type(obj) is not cls]
        names += [kept.name for kept in self._memory() if kept.changed()]
        names += [
            name for name, cls, before in self._of_classes if _differ(_attributes(cls), before)
        ]
        return list(dict.fromkeys(name or "the model" for name in names))

    def changes(self) -> Changes | None:
        """List what is not as it was, by object; None if that is more than `Changes` describes.

        That are variables of Python modules, what closures lead to, attributes in place of methods,
        classes, memory of tensors, and arrays.
        """
        entries, names = [], []
        for name, held in self._held:
            keys = held.entries_changed() if held.changed() else []
            owner = self._registries.get(id(held.obj), held.obj)
            if keys and (self._is_shared_by_code(held.obj) or _hides_code(owner, keys)):
                return None
            entries += [(owner, key) for key in keys]
            names += _changed(name, held) if keys else []
        classes = any(type(obj) is not cls for _, obj, cls in self._classes)
        of_classes = any(_differ(_attributes(cls), before) for _, cls, before in self._of_classes)
        memory = any(kept.changed() for kept in self._memory())
        if classes or of_classes or memory:
            return None
        return Changes(tuple(entries), tuple(dict.fromkeys(names)))

    def overwritten(self, module: torch.nn.Module, name: str) -> bool:
        """Tell whether an attribute of a module is another number or text than it was."""
        for _, held in self._held:
            if held.obj is module:
                default = getattr(type(module), name, None)
                before, now = (each.get(name, default) for each in (held.contents, vars(module)))
                counts = isinstance(before, int | float | str) and not isinstance(before, bool)
                return counts and before != now
        return False

    def put_back(self) -> None:
        """Undo every change."""
        for _, held in self._held:
            if held.changed():
                held.put_back()
        for _, obj, cls in self._classes:
            if type(obj) is not cls:
                obj.__class__ = cls
        for kept in self._memory():
            if kept.changed():
                kept.put_back()
        for _, cls, before in self._of_classes:
            now = _attributes(cls)
            for name in now.keys() - before.keys():
                delattr(cls, name)
            for name, value in before.items():
                if now.get(name) is not value:
                    setattr(cls, name, value)

    def _is_shared_by_code(self, held: Any) -> bool:
        """Tell whether an object is the variables of a Python module, or in those of a closure."""
        enclosed = id(held) in self._enclosed and isinstance(held, (types.CellType, *_CONTAINERS))
        return id(held) in self._scopes or enclosed

    def _memory(self) -> list[_KeptTensor | _KeptArray]:
        return [*self._tensors, *self._arrays]

    def _walk(self, waiting: list[tuple[Any, str, bool]]) -> None:
        """Take down everything that values lead to; of a Python module's variables, containers."""
        while waiting:
            obj, name, of_module = waiting.pop()
            if id(obj) in self._seen or (of_module and not isinstance(obj, _HELD)):
                continue
            self._seen.add(id(obj))
            self._kept_alive.append(obj)
            enclosed = id(obj) in self._enclosed and isinstance(obj, _HELD)
            for value, at in self._take(obj, name):
                waiting.append((value, at, of_module))
                if enclosed or (isinstance(obj, types.FunctionType) and value is not vars(obj)):
                    self._enclosed.add(id(value))
            waiting += ((v, at, True) for v, at in self._surroundings(obj))

    def _take(self, obj: Any, name: str) -> Iterator[tuple[Any, str]]:
        """Take an object down; everything that it holds, with its name."""
        if isinstance(obj, torch.Tensor):
            if torch.nn.parameter.is_lazy(obj):
                self._tensors.append(_KeptTensor(name, obj, type(obj), None))
            elif has_memory(obj) and not is_fake(obj):
                self._tensors.append(_KeptTensor(name, obj, type(obj), obj.detach()))
        elif f"{type(obj).__module__}.{type(obj).__name__}" == "numpy.ndarray":
            if obj.nbytes <= _ARRAY:
                self._arrays.append(_KeptArray(name, obj, obj.copy()))
        elif isinstance(obj, dict):
            self._held.append((name, Snapshot(obj)))
            yield from ((value, f"{name}[{key!r}]") for key, value in obj.items())
        elif isinstance(obj, _HELD):
            if not isinstance(obj, tuple | frozenset):
                self._held.append((name, Snapshot(obj)))
            yield from ((value, f"{name}[{number}]") for number, value in enumerate(obj))
        elif isinstance(obj, types.FunctionType):
            for cell in obj.__closure__ or ():
                self._held.append((name, Snapshot(cell)))
                self._enclosed.add(id(cell))
                yield from ((value, name) for value in Snapshot(cell).contents)
            yield vars(obj), name
        elif isinstance(obj, types.MethodType):
            yield from ((obj.__self__, name), (obj.__func__, name))
        elif isinstance(obj, functools.partial):
            yield from ((obj.func, name), (obj.args, name), (obj.keywords, name))
        elif not isinstance(obj, type | types.ModuleType) and _is_kept(obj):
            yield from self._take_instance(obj, name)

    def _take_instance(self, obj: Any, name: str) -> Iterator[tuple[Any, str]]:
        self._held.append((name, Snapshot(obj)))
        if isinstance(obj, torch.nn.Module):
            self._classes.append((name, obj, type(obj)))
        dot = f"{name}." if name else ""
        for key, value in Snapshot(obj).contents.items():
            plain = key in ("_modules", "_parameters", "_buffers")
            if plain and isinstance(obj, torch.nn.Module):
                self._held.append((name, Snapshot(value)))
                self._registries[id(value)] = obj
                yield from ((each, dot + n) for n, each in value.items())
            else:
                yield value, dot + key

    def _surroundings(self, obj: Any) -> Iterator[tuple[Any, str]]:
        """The variables of the Python modules that define an object's class, or a function."""
        if isinstance(obj, types.FunctionType):
            yield from self._variables(obj.__module__, obj.__globals__)
            return
        if isinstance(obj, type | types.ModuleType) or not _is_kept(obj):
            return
        for cls in type(obj).__mro__:
            if id(cls) in self._seen or _is_foreign(cls.__module__):
                continue
            self._seen.add(id(cls))
            self._of_classes.append((cls.__qualname__, cls, _attributes(cls)))
            yield from ((v, f"{cls.__qualname__}.{n}") for n, v in _attributes(cls).items())
            scope = sys.modules.get(cls.__module__)
            if scope is not None:
                yield from self._variables(cls.__module__, vars(scope))

    def _variables(self, module: str | None, scope: dict[str, Any]) -> Iterator[tuple[Any, str]]:
        if id(scope) in self._seen or _is_foreign(module or ""):
            return
        self._seen.add(id(scope))
        self._scopes.add(id(scope))
        self._held.append((module or "a function", Snapshot(scope)))
        yield from ((v, f"{module}.{n}") for n, v in scope.items() if not n.startswith("__"))


def _hides_code(owner: Any, keys: list[Any]) -> bool:
    """Tell whether attributes take the place of methods, whose code is compared."""
    if isinstance(owner, _CONTAINERS):
        return False
    return any(callable(getattr(type(owner), key, None)) for key in keys if key is not None)


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] in _FOREIGN


def _is_kept(obj: Any) -> bool:
    """Tell whether an object's attributes may be state of a model."""
    if isinstance(obj, torch.nn.Module):
        return True
    holds = hasattr(obj, "__dict__") or bool(slot_names(type(obj)))
    return holds and not _is_foreign(type(obj).__module__)


def _attributes(cls: type) -> dict[str, Any]:
    """The attributes of a class that code may set."""
    return {n: v for n, v in vars(cls).items() if not n.startswith("__") and n != "_abc_impl"}


def _changed(name: str, held: Snapshot) -> list[str]:
    """The names of the attributes of an object that were set, or of a container itself."""
    if isinstance(held.obj, _CONTAINERS) or not hasattr(held.obj, "__dict__"):
        return [name]
    dot = f"{name}." if name else ""
    return [f"{dot}{key}" for key in held.keys_changed() if key in vars(held.obj)] or [name]


def _differ(now: dict[str, Any], before: dict[str, Any]) -> bool:
    return {n: id(v) for n, v in now.items()} != {n: id(v) for n, v in before.items()}
