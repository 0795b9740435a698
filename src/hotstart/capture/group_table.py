"""The table of groups of processes that graphs name, and that programs are bound to at a load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace
from torch import fx

from hotstart._torch.processes.collectives import communicates, waits
from hotstart._torch.processes.ranks import described_group, group_named, name_of_group, world_group
from hotstart.errors import CaptureError
from hotstart.guards.collect import ReadInTrace
from hotstart.records.groups import GroupName, GroupPlace, GroupSlot, GroupSpec

WORLD = "world"


class GroupTable:
    """Numbers the groups that graphs of one model name or read. Shared by all captures of it."""

    def __init__(self) -> None:
        self._names: dict[str, GroupName] = {}
        self._world: set[str] = set()

    def name(self, name: str) -> GroupName:
        """The name of a group, with its number and the key that users give it by.

        Raises:
            CaptureError: there is no such group in this process.
        """
        known = self._names.get(name)
        if known is None:
            known = self._names[name] = self._new(name)
        return known

    def _new(self, name: str) -> GroupName:
        group, world = group_named(name), world_group()
        if group is None:
            raise CaptureError(
                f"group {name!r}: expected a group of torch.distributed that this process is in, "
                "found none. Initialise torch.distributed, and make the group, before the model is "
                "compiled."
            )
        number = len(self._names)
        taken = {known.key for known in self._names.values()}
        if world is not None and name == name_of_group(world):
            self._world.add(name)
            key = WORLD
        else:
            key = described_group(group)
            key = f"group_{number}" if not key or key == WORLD or key in taken else key
        return GroupName.of(name, key, group.size(), GroupSlot(number))

    @property
    def here(self) -> dict[str, str]:
        """The names that the groups have in this process, by key."""
        return {known.key: str(known) for known in self._names.values()}

    def specs(self, read: Iterable[tuple[str, ReadInTrace]]) -> tuple[GroupSpec, ...]:
        """Describe each group, by number, with what graphs read of it.

        Args:
            read: for each graph the path from the model to what is called, and what was read.
        """
        reads = list(read)
        ranked = any(one.asks_for_rank for _, one in reads)
        return tuple(
            GroupSpec(
                key=known.key,
                size=known.size,
                world=name in self._world,
                rank=group_named(name).rank() if ranked else None,
                places=tuple(dict.fromkeys(_places(name, reads))),
            )
            for name, known in self._names.items()
        )


def _places(name: str, read: Iterable[tuple[str, ReadInTrace]]) -> Iterator[GroupPlace]:
    """Yield the places that graphs read a group from."""
    for method, one in read:
        for place in one.groups.get(name, ()):
            of_the_call = place.start in ("closure", "self", "target")
            yield replace(place, name=method) if of_the_call else place


def name_groups(graph: fx.Graph, table: GroupTable) -> None:
    """Have the collectives of a graph name their groups by what the table knows of them."""
    for node in graph.nodes:
        if node.op == "call_function" and communicates(node) and not waits(node):
            node.args = (*node.args[:-1], table.name(str(node.args[-1])))
