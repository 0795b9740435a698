"""Guards: whether what a program was compiled for is still so, at load, in calls and in a cache."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import msgspec
import torch

from hotstart import _torch
from hotstart.ir import ModuleKind, Requirements
from hotstart.keys.records import Change, Guard, Seen, described
from hotstart.runtime.structure import (
    Look,
    differs,
    environment_text,
    follow,
    misfits,
    operator_misfits,
    runs_hooks,
)
from hotstart.runtime.watch import Sealed, Watch, is_filled
from hotstart.tensors import Finder, Model, method_of

RESTLESS = 2
"""A dict that was written to so many times without that a guard failed is no longer watched as a
whole."""

_REGISTERED = ("_parameters", "_buffers", "_modules")


class _Split(msgspec.Struct, frozen=True):
    """The guards on a kind of module, by how they are watched.

    Attributes:
        names: attributes of the module itself; one of its dict's entries or of its class.
        registered: what is registered with the module: the dict, the name.
        others: those that take more steps.
    """

    names: tuple[str, ...]
    registered: tuple[tuple[str, str | int], ...]
    others: tuple[Guard, ...]

    @staticmethod
    def of(kind: ModuleKind) -> _Split:
        names: list[str] = []
        registered: list[tuple[str, str | int]] = []
        others: list[Guard] = []
        for guard in kind.guards:
            match guard.steps:
                case (("attribute", name),) if guard.kind in ("value", "own") or (
                    guard.kind == "attribute" and guard.text == "there"
                ):
                    names.append(str(name))
                case (("attribute", held), ("item", name)) if (
                    held in _REGISTERED and guard.kind in ("value", "class")
                ):
                    registered.append((str(held), name))
                case _:
                    others.append(guard)
        return _Split(tuple(names), tuple(registered), tuple(others))


class Guards:
    """The guards of a program, and where it was last seen that they hold.

    They are compared one by one only if something changed that they hang on.
    """

    def __init__(
        self, model: Model, requirements: Requirements, captured: Mapping[int, torch.Tensor]
    ) -> None:
        self._model = model
        self._requirements = requirements
        self._captured = captured
        self._kinds = [_Split.of(kind) for kind in requirements.kinds]
        self._sealed: Sealed | None = None
        self._written: Counter[int] = Counter()

    def forget(self) -> None:
        """Compare everything when asked next, and what is not watched, too."""
        self._sealed = None

    def problems(self, finder: Finder, also: Iterable[dict[str, Any]]) -> list[str]:
        """A line for everything that is not what the program was compiled for.

        Args:
            finder: finds the model's modules as they are now.
            also: dicts that decide where tensors are found.
        """
        before = self._sealed
        if before is not None and before.unchanged():
            return []
        if before is not None:
            self._written.update(map(id, before.changed()))
        self._sealed = None
        sealed = self._watch(finder, also).sealed()  # first: what changes meanwhile shows
        look = Look()
        problems = misfits(self._requirements, finder, look, runs_hooks(self._model))
        if before is None:
            problems += operator_misfits(self._requirements, look)
        problems += [
            f"{what}: expected {expected}, found {found:.80}"
            for what, expected, found in changes(
                self._model, self._requirements.seen, look, self._captured.values()
            )
        ]
        if not problems:
            self._sealed = sealed
        return problems

    def unchanged(self) -> bool:
        """Whether nothing changed that could make a guard fail."""
        return self._sealed is not None and self._sealed.unchanged()

    def watched(self) -> Set[int]:
        """The dicts, by identity, of which any change is noticed."""
        return set() if self._sealed is None else self._sealed.mappings

    def _watch(self, finder: Finder, also: Iterable[dict[str, Any]]) -> Watch:
        restless = {one for one, count in self._written.items() if count >= RESTLESS}
        watch = Watch(restless)
        for mapping in also:
            watch.mapping(mapping)
        for hooks in _torch.global_hook_dicts():
            watch.empty(hooks)
        for path, number in self._requirements.modules:
            module, kind = finder.module(path), self._kinds[number]
            if module is None:
                continue
            held = watch.module(module, kind.names)
            for registered, name in kind.registered:
                watch.mapping(held[registered], name)
            for guard in kind.others:
                watch.guard(module, guard)
        for one in self._requirements.seen:
            if one.start == "environment":
                watch.environment(one.name)
            elif one.start == "closure":
                watch.cell(_cells(self._model, one.name), one.guard)
            elif one.guard.text:
                watch.guard(_start(self._model, one), one.guard)
        return watch


def changes(
    model: Model,
    seen: Iterable[Seen],
    look: Look | None = None,
    captured: Iterable[torch.Tensor] = (),
) -> Iterator[Change]:
    """Everything outside of a model's modules that is not what it was when it was seen.

    Args:
        model: the model.
        seen: what it was.
        look: what things are now.
        captured: tensors that the program itself reads, whatever they hold.
    """
    look = look or Look()
    for one in seen:
        if one.start == "environment":
            found = environment_text(one.name)
        else:
            start = _start(model, one)
            if one.guard.kind == "tensor" and _is_one_of(captured, start, one.guard):
                continue
            found = look.text(one.guard.kind, one.guard.steps, start)
        if differs(one.guard, found):
            yield described(one), one.guard.text, found


def _is_one_of(tensors: Iterable[torch.Tensor], start: Any, guard: Guard) -> bool:
    with contextlib.suppress(AttributeError, LookupError, TypeError):
        found = follow(start, guard.steps)
        return any(found is tensor for tensor in tensors)
    return False


def _start(model: Model, one: Seen) -> Any:
    """The object that the steps of a guard start at; None if there is none."""
    if one.start == "python":
        return python_module(one.name)
    if one.start == "self":
        return getattr(_target(model, one.name), "__self__", None)
    return {
        name: cell.cell_contents
        for name, cell in _cells(model, one.name).items()
        if is_filled(cell)
    }


def _target(model: Model, method: str) -> Any:
    """The function or bound method that a call of a model, or of one of its methods, runs."""
    target = method_of(model, method)
    return target.forward if isinstance(target, torch.nn.Module) else target


def _cells(model: Model, method: str) -> dict[str, types.CellType]:
    """The variables that this function closes over, by name."""
    target = _target(model, method)
    function = getattr(target, "__func__", target)
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return dict(zip(names, getattr(function, "__closure__", None) or (), strict=True))


def python_module(name: str) -> Any:
    """A Python module, imported if it is not yet; None if there is none.

    Some, such as `torch.ops.aten`, are found only as attributes of others.
    """
    with contextlib.suppress(ImportError, ValueError):
        return sys.modules.get(name) or importlib.import_module(name)
    parent, _, last = name.rpartition(".")
    return getattr(python_module(parent), last, None) if parent else None
