"""Compare guards with the model and Python as they are now: at load, in calls, in a cache."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import torch
from msgspec.structs import replace

from hotstart._torch.processes.ranks import world_place
from hotstart._torch.running.hooks import global_hook_dicts
from hotstart.guards.functions import module_name
from hotstart.guards.group_reads import rank_text
from hotstart.guards.structure import (
    Look,
    differs,
    environment_text,
    misfits,
    operator_misfits,
    runs_hooks,
)
from hotstart.guards.watch import REGISTERED, Sealed, Watch, is_filled
from hotstart.model import IN_PLACE_OF, Finder, Model, method_of
from hotstart.records.artifact import Requirements
from hotstart.records.guards import Change, Guard, ModuleKind, Seen, described

RESTLESS = 2
"""A dict that was found written to this many times is no longer watched as a whole."""


class _Split(msgspec.Struct, frozen=True):
    """The guards on a kind of module, by how they are watched.

    Attributes:
        names: attributes of the module itself; one of its dict's entries or of its class.
        methods: what ran of its class.
        registered: what is registered with the module: the dict, the name.
        others: those that take more steps.
    """

    names: tuple[str, ...]
    methods: tuple[str, ...]
    registered: tuple[tuple[str, str | int], ...]
    others: tuple[Guard, ...]

    @staticmethod
    def of(kind: ModuleKind) -> _Split:
        names: list[str] = []
        methods: list[str] = []
        registered: list[tuple[str, str | int]] = []
        others: list[Guard] = []
        for guard in kind.guards:
            match guard.steps:
                case (("attribute", name),) if guard.kind in ("value", "own") or (
                    guard.kind == "attribute" and guard.text == "there"
                ):
                    names.append(str(name))
                case (("class", _), ("attribute", name)) if guard.kind == "method":
                    methods.append(str(name))
                case (("attribute", held), ("item", name)) if (
                    guard.kind in ("value", "class") and held in REGISTERED
                ):
                    registered.append((str(held), name))
                case _:
                    others.append(guard)
        return _Split(tuple(names), tuple(methods), tuple(registered), tuple(others))


class Guards:
    """The guards of a program, and a snapshot of the state in which they last held.

    They are evaluated only after something that they depend on has changed.

    Attributes:
        sealed: tells whether something changed since all of them held; None if some do not hold, or
            if something changed while they were evaluated.
    """

    def __init__(
        self,
        model: Model,
        requirements: Requirements,
        captured: Mapping[int, torch.Tensor],
        compare_code: bool,
    ) -> None:
        if not compare_code:
            requirements = without_code(requirements)
        self._model = model
        self._requirements = requirements
        self._captured = captured
        self._kinds = [_Split.of(kind) for kind in requirements.kinds]
        self.sealed: Sealed | None = None
        self._written: Counter[int] = Counter()

    def forget(self) -> None:
        """Evaluate every guard when asked next, also those on what is not watched."""
        self.sealed = None

    def changes(self, finder: Finder, paths: Iterable[str]) -> list[Change]:
        """List everything that differs from what the program was compiled for.

        Args:
            finder: finds the model's modules as they were when the tensors were looked up.
            paths: the modules that keep the tensors: replacing one replaces the tensors.
        """
        before = self.sealed
        if before is not None and before.unchanged():
            return []
        if before is not None:
            self._written.update(map(id, before.changed()))
        self.sealed = None
        all_paths = {*paths, *(path for path, _ in self._requirements.modules)}
        ways = finder.ways(all_paths)
        sealed = Sealed(self._watch(finder, ways.values()))  # first: what changes meanwhile shows
        look = Look(self._captured.values())
        found = misfits(self._requirements, finder, look, runs_hooks(self._model))
        if before is None:
            found += operator_misfits(self._requirements, look)
        found += changes(self._model, self._requirements.seen, look)
        again = Finder(self._model)  # what changed before shows now
        if not found and all(again.module(path) is finder.module(path) for path in all_paths):
            self.sealed = sealed
        return found

    def _watch(self, finder: Finder, ways: Iterable[dict[str, Any]]) -> Watch:
        restless = {one for one, count in self._written.items() if count >= RESTLESS}
        watch = Watch(restless)
        for mapping in ways:
            watch.mapping(mapping)
        for hooks in global_hook_dicts().values():
            watch.empty(hooks)
        if self._requirements.groups:
            watch.attribute(*world_place())
        for path, number in self._requirements.modules:
            module, kind = finder.module(path), self._kinds[number]
            if module is None:
                continue
            held = watch.module(module, kind.names, kind.methods)
            for registered, name in kind.registered:
                watch.mapping(held[registered], name)
            for guard in kind.others:
                watch.guard(module, guard)
        for one in self._requirements.seen:
            if one.start == "environment":
                watch.environment(one.name)
            elif one.start == "closure":
                watch.cell(_cells(self._model, one.name), one.guard)
            elif one.start == "ranks":
                watch.attribute(*world_place())
            elif one.guard.text:
                watch.guard(start_of(self._model, one), one.guard)
        return watch


def changes(model: Model, seen: Iterable[Seen], look: Look | None = None) -> Iterator[Change]:
    """List what changed, outside of a model's modules, since it was seen."""
    look = look or Look()
    for one in seen:
        if one.start == "environment":
            found = environment_text(one.name)
        elif one.start == "ranks":
            found = rank_text(one.name)
        else:
            found = look.text(one.guard.kind, one.guard.steps, start_of(model, one))
        if differs(one.guard, found):
            yield described(one), one.guard.text, found


def start_of(model: Model, one: Seen) -> Any:
    """The object that the steps of a guard start at; None if there is none."""
    if one.start == "python":
        return python_module(one.name)
    if one.start == "self":
        return getattr(_target(model, one.name), "__self__", None)
    if one.start == "target":
        return method_of(model, one.name)
    return {
        name: cell.cell_contents
        for name, cell in _cells(model, one.name).items()
        if is_filled(cell)
    }


def without_code(requirements: Requirements) -> Requirements:
    """Requirements whose guards compare functions by name only."""
    return replace(
        requirements,
        kinds=tuple(
            replace(kind, guards=tuple(filter(None, map(_without_code, kind.guards))))
            for kind in requirements.kinds
        ),
        seen=tuple(
            replace(one, guard=guard)
            for one in requirements.seen
            if (guard := _without_code(one.guard)) is not None
        ),
    )


def _without_code(guard: Guard) -> Guard | None:
    if guard.kind in ("code", "method"):
        return None
    return replace(guard, text=guard.text.split(" ")[0]) if guard.kind == "function" else guard


def _target(model: Model, method: str) -> Any:
    """The function or bound method that a call of a model, or of one of its methods, runs."""
    target = method_of(model, method)
    return target.forward if isinstance(target, torch.nn.Module) else target


def _cells(model: Model, method: str) -> dict[str, types.CellType]:
    """The variables that this function closes over, by name.

    Where hotstart's stands in its place, as after `install`, those of both.
    """
    target = _target(model, method)
    function = getattr(target, "__func__", target)
    own = getattr(function, IN_PLACE_OF, function)
    return {**_cells_of(own), **_cells_of(function)}


def _cells_of(function: Any) -> dict[str, types.CellType]:
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return dict(zip(names, getattr(function, "__closure__", None) or (), strict=True))


def python_module(name: str) -> Any:
    """A Python module, imported if it is not yet; None if there is none.

    Some, such as `torch.ops.aten`, are found only as attributes of others.
    """
    if module_name("__main__") == name:
        return sys.modules["__main__"]
    with contextlib.suppress(ImportError, ValueError):
        return sys.modules.get(name) or importlib.import_module(name)
    parent, _, last = name.rpartition(".")
    return getattr(python_module(parent), last, None) if parent else None
