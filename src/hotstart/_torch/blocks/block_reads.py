"""Check that another block's objects are related as those that a trace read.

Dynamo guards what it reads of an object. Which object it is, it does not say where it knows the
object already: it goes on with the name that it read it by first. So what `is` answers, and whose
weight a name leads to, is compared here for each object by itself.

Private names, of torch 2.11 to 2.15: Dynamo's sources, and `OutputGraph.side_effects`, which has
the objects that a trace knows.
"""

from __future__ import annotations

import collections
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from hotstart._torch.blocks.block_names import Counterparts, Move
from hotstart._torch.dynamo.guards import object_named

Read = tuple[Any, Any]
"""Dynamo's source of an object, and the object."""

_BY_VALUE = (
    bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout,
)  # fmt: skip
_CONTAINERS = (
    list, tuple, dict, set, frozenset, range, slice, torch.Size, collections.deque,
    collections.OrderedDict,
)  # fmt: skip
"""What Dynamo guards entry by entry, so that another block may have one of its own."""


class ObjectsRead:
    """The objects that a trace read, in order."""

    def __init__(self) -> None:
        self._all: list[Read] = []
        self._sources: defaultdict[int, dict[Any, None]] = defaultdict(dict)
        self._modules: list[torch.nn.Module] = []

    @property
    def position(self) -> tuple[int, int]:
        """The number of objects, and of reads of modules, so far."""
        return len(self._all), len(self._modules)

    def note(self, source: Any, value: Any) -> None:
        self.note_modules(value)
        if type(value) in _BY_VALUE or source in self._sources[id(value)]:
            return
        self._sources[id(value)][source] = None
        self._all.append((source, value))  # keeps the object, and so its identity

    def note_modules(self, value: Any) -> None:
        """Note a module that was come by once more, or those in a container."""
        values = (*value, *value.values()) if isinstance(value, dict) else (value,)
        if type(value) in (list, tuple, set, frozenset, collections.deque):
            values = tuple(value)
        self._modules += (each for each in values if isinstance(each, torch.nn.Module))

    def of(self, source: Any) -> tuple[Read, ...]:
        """List what was read of a module and of everything that it holds."""
        move = Move(source, source)
        return tuple(read for read in self._all if move(read[0]) is not None)

    def modules_since(self, position: tuple[int, int]) -> frozenset[torch.nn.Module]:
        return frozenset(self._modules[position[1] :])

    def has_tensors_before(self, position: tuple[int, int], reads: Iterable[Read]) -> bool:
        """Tell whether tensors among some reads were read before."""
        known = {id(value) for _, value in self._all[: position[0]]}
        return any(isinstance(value, torch.Tensor) and id(value) in known for _, value in reads)

    def elsewhere(self, identity: int, move: Move) -> bool:
        """Tell whether an object was read by a name that is not the block's."""
        return any(move(source) is None for source in self._sources.get(identity, ()))


def same_objects(
    reads: Iterable[Read], move: Move, counterparts: Counterparts, output: Any
) -> list[Read] | None:
    """Find a block's counterparts of the objects that were read of an earlier block.

    None if they are not known to be its counterparts, the same objects, or containers of its own
    that are one where the earlier block's are one.
    """
    scopes = {"L": output.root_tx.f_locals, "G": output.root_tx.f_globals}
    unknown = object()
    found: list[Read] = []
    pairs: dict[int, Any] = {}
    for source, old in reads:
        moved = move(source)
        new = object_named(moved.name, scopes, unknown)
        own = counterparts.of(old)
        if own is None and isinstance(old, torch.nn.Module):
            return None  # a way from the block to those around it
        own_container = type(old) in _CONTAINERS and type(new) is type(old)
        if new is not (old if own is None else own) and not (own is None and own_container):
            return None
        if pairs.setdefault(id(old), new) is not new:
            return None
        found.append((moved, new))
    return found if len(set(map(id, pairs.values()))) == len(pairs) else None


def met_elsewhere(
    earlier: tuple[Any, Iterable[Read]],
    block: tuple[Any, Iterable[Read]],
    counterparts: Counterparts,
    objects: ObjectsRead,
) -> bool:
    """Tell whether an object of one block only was read by a name that is not the block's.

    Args:
        earlier: Dynamo's source of a block, and what was read of it.
        block: the same of another, one for one.
        counterparts: of what the blocks hold.
        objects: those that the trace read.
    """
    moves = [Move(source, source) for source, _ in (earlier, block)]
    pairs = {id(old): id(new) for (_, old), (_, new) in zip(earlier[1], block[1], strict=True)}
    pairs |= {old: id(own) for old, own in counterparts.all()}
    return any(
        objects.elsewhere(identity, move)
        for pair in pairs.items()
        if pair[0] != pair[1]
        for identity, move in zip(pair, moves, strict=True)
    )


def known_already(earlier: Iterable[Read], block: Iterable[Read], output: Any) -> dict[Any, Any]:
    """The sources of objects of both blocks that a trace tracks, and does not guard again.

    Each with the source that the trace read it by first.
    """
    return {
        source: output.side_effects[new].source
        for (_, old), (source, new) in zip(earlier, block, strict=True)
        if new is old and new in output.side_effects
    }
