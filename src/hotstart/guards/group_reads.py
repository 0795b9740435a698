"""Collect the process groups that forward read, and guard on the rank of this process."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from hotstart._torch.processes.collectives import asks_for_world_size
from hotstart._torch.processes.ranks import (
    asks_if_initialized,
    group_text,
    is_group,
    is_initialized,
    is_mesh,
    mesh_groups,
    name_of_group,
    own_rank,
    world_group,
)
from hotstart.guards.structure import follow
from hotstart.records.groups import GroupPlace, GroupStart
from hotstart.records.guards import Guard, Seen, Step


class GroupsRead:
    """Collects the groups of processes that a trace read, and where."""

    def __init__(self) -> None:
        self._found: dict[str, dict[GroupPlace, None]] = {}
        self._any = is_initialized()

    def meet(self, value: Any) -> None:
        """Note an object that was read, if it is a group or a mesh, wherever it was found."""
        if self._any and _is_group_or_mesh(value):
            for group, _ in _groups_in(value):
                self._found.setdefault(name_of_group(group), {})

    def guard(
        self, start: Any, kind: GroupStart, name: str, steps: tuple[Step, ...]
    ) -> Guard | None:
        """Note the group or mesh that some steps pass, and return a guard on its place.

        Attributes of a group, such as its name, differ from process to process, so the steps end at
        the group. None if they pass no group, or start in torch itself. The group of all processes
        is noted even then, since a model may hold it.
        """
        way = _steps_to_group(start, steps) if self._any else None
        if way is None:
            return None
        value = follow(start, way)
        self.meet(value)
        of_torch = kind == "python" and name.partition(".")[0] == "torch"
        if not of_torch or value is world_group():
            for group, dimension in _groups_in(value):
                places = self._found.setdefault(name_of_group(group), {})
                places[GroupPlace(kind, name, way, dimension)] = None
        return None if of_torch else Guard(way, "group", group_text(value))

    def found(self) -> Mapping[str, tuple[GroupPlace, ...]]:
        """The groups by their names in this process, with the places they were read from."""
        return {name: tuple(places) for name, places in self._found.items()}


def _steps_to_group(start: Any, steps: tuple[Step, ...]) -> tuple[Step, ...] | None:
    """The first of some steps, up to a group or a mesh; None if they pass none."""
    held = start
    for number, step in enumerate(steps, start=1):
        try:
            held = follow(held, (step,))
        except (AttributeError, LookupError, TypeError):
            return None
        if _is_group_or_mesh(held):
            return steps[:number]
    return None


def _is_group_or_mesh(value: Any) -> bool:
    return is_group(value) or is_mesh(value)


def _groups_in(value: Any) -> list[tuple[Any, int | None]]:
    """A group, or those of a mesh with the dimension of each."""
    if is_mesh(value):
        return [(group, at) for at, group in enumerate(mesh_groups(value))]
    return [(value, None)]


def seen_of_process(
    codes: Iterable[types.CodeType], functions: Collection[Any], asks_for_rank: bool
) -> Iterator[Seen]:
    """Yield guards on rank and world size, as far as code may have asked for them.

    Args:
        codes: all code that was traced, torch's own included.
        functions: those that were read.
        asks_for_rank: whether code may have asked for ranks.
    """
    names = ["initialized"] if any(map(asks_if_initialized, functions)) else []
    if asks_for_rank:
        names += ["rank", "world size"]
    elif is_initialized() and asks_for_world_size(codes, functions):
        names.append("world size")
    for name in names:
        yield Seen("ranks", name, Guard((), "value", rank_text(name)))


def rank_text(name: str) -> str:
    """The rank of this process, the world size, or whether there is a group at all, as text.

    Args:
        name: `"rank"`, `"world size"` or `"initialized"`.
    """
    if not is_initialized():
        return "False" if name == "initialized" else "torch.distributed is not initialised"
    rank, size = own_rank()
    return {"initialized": "True", "rank": str(rank), "world size": str(size)}[name]
