"""Bind a program to groups of processes: those that a user gives, the model's, or all processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hotstart._torch.processes.ranks import (
    group_named,
    is_group,
    is_initialized,
    is_mesh,
    mesh_groups,
    name_of_group,
    world_group,
)
from hotstart.errors import GroupMismatch, OptionsError
from hotstart.guards.compare import start_of
from hotstart.guards.group_reads import rank_text
from hotstart.guards.structure import follow
from hotstart.model import Finder, Model
from hotstart.records.artifact import Requirements
from hotstart.records.groups import GroupPlace, GroupSlot, GroupSpec
from hotstart.records.guards import Change, Guard, Seen, described


class Groups(msgspec.Struct, frozen=True):
    """Lookup of the groups that a program needs.

    Attributes:
        requirements: lists the groups.
        model: may hold them; None where there is no model.
        given: groups, or their names in this process, by key.
        traced: names that the groups had in this process when the program was built here, by key.
    """

    requirements: Requirements
    model: Model | None = None
    given: Mapping[str, Any] = {}
    traced: Mapping[str, str] = {}

    def names(self) -> list[str]:
        """The names that the groups have in this process, by number.

        Raises:
            GroupMismatch: groups that are missing or do not fit, each named; or this process is
                another one than the program was built for.
            OptionsError: a group was given that the program does not have.
        """
        specs = self.requirements.groups
        if unknown := sorted(self.given.keys() - {spec.key for spec in specs}):
            keys = ", ".join(repr(spec.key) for spec in specs) or "none"
            raise OptionsError(f"groups: got {unknown[0]!r}, takes {keys}")
        problems = list(self._other_process())
        found: list[str] = []
        for spec in specs:
            group = self._find(spec)
            problems += _problems_of(spec, group)
            found.append("" if group is None else name_of_group(group))
        problems += self._places_that_differ(found)
        problems += self._one_for_two(found)
        if problems:
            raise GroupMismatch(problems)
        return found

    def constants(self, constants: tuple[Any, ...]) -> list[Any]:
        """Constants of generated code, with names in place of what stands for groups.

        Raises:
            GroupMismatch, OptionsError: as `names`.
        """
        names = self.names() if self.requirements.groups else []
        return [names[one.number] if type(one) is GroupSlot else one for one in constants]

    def _find(self, spec: GroupSpec) -> Any:
        """The group of a program that there is here; None if there is none."""
        if spec.key in self.given:
            return _as_group(spec.key, self.given[spec.key])
        held = [group for place in spec.places if (group := self._at(place)) is not None]
        if held:
            return held[0]
        if spec.key in self.traced:
            return group_named(self.traced[spec.key])
        return world_group() if spec.world else None

    def _at(self, place: GroupPlace) -> Any:
        """The group at a place of the model, or at one that forward finds elsewhere."""
        if self.model is None:
            return None
        if place.start == "module":
            start: Any = Finder(self.model).module(place.name)
        else:
            start = start_of(self.model, Seen(place.start, place.name, Guard((), "group", "")))
        try:
            held = follow(start, place.steps)
        except (AttributeError, LookupError, TypeError):
            return None
        if place.dimension is None:
            return held if is_group(held) else None
        groups = mesh_groups(held) if is_mesh(held) else []
        return groups[place.dimension] if place.dimension < len(groups) else None

    def _places_that_differ(self, names: list[str]) -> Iterator[Change]:
        """Yield places that held one group when the program was built, and hold several now."""
        for spec, name in zip(self.requirements.groups, names, strict=True):
            if spec.key in self.given:
                continue
            for place in spec.places:
                group = self._at(place)
                if group is not None and name_of_group(group) != name:
                    where = f"group {spec.key!r} at {place.name or 'the model'}"
                    yield where, "the group that it is elsewhere", "another group"

    def _one_for_two(self, names: list[str]) -> Iterator[Change]:
        """Yield groups that are one group here and were two, which forward may have compared."""
        first: dict[str, str] = {}
        for spec, name in zip(self.requirements.groups, names, strict=True):
            other = first.setdefault(name, spec.key) if name else spec.key
            if other != spec.key:
                yield f"group {spec.key!r}", f"another group than {other!r}", "the same"

    def _other_process(self) -> Iterator[Change]:
        """Yield what this process is among others that the program was not built for."""
        for one in self.requirements.seen:
            if one.start == "ranks" and (found := rank_text(one.name)) != one.guard.text:
                yield described(one), one.guard.text, found


def _as_group(key: str, given: Any) -> Any:
    """A group that a user gives, as such or by its name in this process.

    Raises:
        OptionsError: it is neither.
    """
    if isinstance(given, str):
        return group_named(given)
    if is_mesh(given) and given.ndim == 1:
        return given.get_group()
    if not is_group(given):
        raise OptionsError(
            f"groups[{key!r}]: got a {type(given).__qualname__}, takes a ProcessGroup, a "
            "DeviceMesh of one dimension, or the name of a group"
        )
    return given


def _problems_of(spec: GroupSpec, group: Any) -> Iterator[Change]:
    """Yield why a group is not one that a program can run in."""
    what, expected = f"group {spec.key!r}", f"a group of {spec.size} processes"
    if group is None:
        initialised = is_initialized()
        yield what, expected, "none" if initialised else "torch.distributed is not initialised"
    elif group_named(name_of_group(group)) is not group:  # names are used again
        yield what, expected, "one that was destroyed"
    elif group.size() != spec.size:
        yield what, expected, f"one of {group.size()}"
    elif spec.rank is not None and group.rank() != spec.rank:
        yield what, f"rank {spec.rank} in it, which forward asked for", f"rank {group.rank()}"
