"""Records of the groups of processes that a program talks in. Nothing here imports torch."""

from typing import Literal, Self, TypeAlias

import msgspec

from hotstart.records.guards import Start, Step

GroupStart: TypeAlias = Literal["module"] | Start
"""Where steps to a group start: at a module of the model, or as in `Seen`."""


class GroupPlace(msgspec.Struct, frozen=True):
    """A place that forward read a group of processes from.

    Attributes:
        start: where its steps start.
        name: the path of the module, or the name as in `Seen`.
        steps: attributes and items on the way to the group, or to a device mesh.
        dimension: of the mesh; None for a group.
    """

    start: GroupStart
    name: str
    steps: tuple[Step, ...]
    dimension: int | None = None


class GroupSpec(msgspec.Struct, frozen=True):
    """A group of processes that a program is bound to when it is loaded.

    Attributes:
        key: the name that users give it by: `"world"`, its description, or `"group_<n>"`.
        size: how many processes it has.
        world: whether it was the group of all processes.
        rank: the rank of this process in it, where forward may have asked for ranks; else None.
        places: where forward read it; none if it was found otherwise.
    """

    key: str
    size: int
    world: bool
    rank: int | None = None
    places: tuple[GroupPlace, ...] = ()


class GroupSlot(msgspec.Struct, frozen=True):
    """A constant of generated code that stands for the name of a group.

    Attributes:
        number: of the group, in `Requirements.groups`.
    """

    number: int


class GroupName(str):
    """The name that a group has in the process that traces; operators take it as the text it is.

    Attributes:
        key: as in `GroupSpec`.
        size: as in `GroupSpec`.
        slot: what stands for it in generated code.
    """

    __slots__ = ("key", "size", "slot")
    key: str
    size: int
    slot: GroupSlot

    @classmethod
    def of(cls, name: str, key: str, size: int, slot: GroupSlot) -> Self:
        """The name with what it stands for."""
        made = cls(name)
        made.key, made.size, made.slot = key, size, slot
        return made
