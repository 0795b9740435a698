"""Move names of one block's objects to those of another block.

Private names, of torch 2.11 to 2.15: Dynamo's sources, with the `base` that each is part of, and
its guards.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hotstart._torch.blocks.block_call import BlockCall, Given
from hotstart._torch.dynamo.guards import object_named, same_when_read, says_nothing


@dataclass(frozen=True)
class Counterparts:
    """Map the modules and tensors of one block to those of another that is built alike.

    Attributes:
        tensors: by identity of a tensor of the first block, that of the second.
        modules: the same for modules, the blocks among them.
    """

    tensors: Mapping[int, torch.Tensor]
    modules: Mapping[int, torch.nn.Module]

    def of(self, value: Any) -> torch.Tensor | torch.nn.Module | None:
        """The counterpart of an object; None if it is no part of the first block."""
        return self.tensors.get(id(value), self.modules.get(id(value)))

    def all(self) -> Iterator[tuple[int, torch.Tensor | torch.nn.Module]]:
        yield from self.tensors.items()
        yield from self.modules.items()


class Move:
    """Names of one block, as those of another."""

    def __init__(self, old: Any, new: Any) -> None:
        olds, news = _layers(old), _layers(new)
        same = [type(a) for a in olds] == [type(b) for b in news]
        self._known: dict[Any, Any] = dict(zip(olds, news, strict=True)) if same else {}

    def __call__(self, source: Any) -> Any:
        """The source of what stands there in the other block; None if it is of neither.

        What is read of a block's class is of neither: both are of one class.
        """
        from torch._dynamo.source import TypeSource

        if source not in self._known:
            base = None if isinstance(source, TypeSource) else getattr(source, "base", None)
            moved = None if base is None else self(base)
            made = None if moved is None else dataclasses.replace(source, base=moved)
            self._known[source] = made
        return self._known[source]


def _layers(source: Any) -> list[Any]:
    """A source and those around which it is a mere wrapper, which have its name."""
    found = [source]
    while (base := getattr(found[-1], "base", None)) is not None and base.name == source.name:
        found.append(base)
    return found


def guards_on(source: Any, output: Any) -> Iterator[Any]:
    """Yield the guards of a trace on a module and on everything that it holds."""
    move = Move(source, source)
    for guard in output.guards:
        if not says_nothing(guard) and move(guard.originating_source) is not None:
            yield guard


def moved_guards(earlier: BlockCall, move: Move, output: Any) -> list[Any] | None:
    """Translate guards on an earlier block to this one; None if one finds something else here."""
    scopes = {"L": output.root_tx.f_locals, "G": output.root_tx.f_globals}
    unknown = object()
    moved = []
    for guard in earlier.guards:
        new = move(guard.originating_source).make_guard(guard.create_fn)
        values = [object_named(each.name, scopes, unknown) for each in (guard, new)]
        if any(value is unknown for value in values) or not same_when_read(guard, *values):
            return None
        moved.append(new)
    return moved


def guards_beside(guards: list[Any], known: frozenset[Any]) -> Iterator[Any]:
    """The guards that are not about objects of some sources, nor about what these hold."""
    for guard in guards:
        if not known.intersection(_bases(guard.originating_source)):
            yield guard


def _bases(source: Any) -> Iterator[Any]:
    """A source and those that it is part of."""
    while source is not None:
        yield source
        source = getattr(source, "base", None)


def moved_weights(
    earlier: BlockCall, given: Given, move: Move, counterparts: Counterparts, output: Any
) -> dict[fx.Node, tuple[Any, Any]] | None:
    """By placeholder that an earlier call read, the source and value of the block's own.

    None if it is not known which tensor takes the place of one: where the block has it by another
    name, or it is passed as an argument as well.
    """
    scopes = {"L": output.root_tx.f_locals, "G": output.root_tx.f_globals}
    unknown = object()
    replaced = dict(zip(earlier.given.nodes, given.nodes, strict=True))
    if any(_passes_weight(*pair, counterparts, output) for pair in replaced.items()):
        return None
    found: dict[fx.Node, tuple[Any, Any]] = {}
    for node in {read: None for each in earlier.nodes for read in each.all_input_nodes}:
        if node.op != "placeholder" or node in replaced:
            continue
        source = _source_of(node)
        value = unknown if source is None else object_named(source.name, scopes, unknown)
        if value is unknown:
            return None
        own = counterparts.tensors.get(id(value))
        moved = move(source)
        if moved is None:
            if own is not None and own is not value:
                return None
        elif own is None or object_named(moved.name, scopes) is not own:
            return None
        else:
            found[node] = (moved, own)
    return found


def _passes_weight(old: fx.Node, new: fx.Node, counterparts: Counterparts, output: Any) -> bool:
    """Tell whether two calls are given different weights, or one of either block's."""
    scopes = {"L": output.root_tx.f_locals, "G": output.root_tx.f_globals}
    passed = [source for node in (old, new) if (source := _weight_source(node, output)) is not None]
    if old is not new or not passed:
        return bool(passed)
    value = object_named(passed[0].name, scopes)
    return counterparts.of(value) is not None or any(value is own for _, own in counterparts.all())


def _weight_source(node: fx.Node, output: Any) -> Any:
    """Dynamo's source of a placeholder; None for an argument of the model and what is computed."""
    source = _source_of(node) if node.op == "placeholder" else None
    return None if source is None or _is_argument(source.name, output) else source


def _source_of(node: fx.Node) -> Any:
    return getattr(node.meta.get("grapharg"), "source", None)


def _is_argument(name: str, output: Any) -> bool:
    """Tell whether a name of Dynamo's is an argument of the model, or in one, and of no object."""
    found = re.fullmatch(r"L\['(\w+)'\](\[[^.]*\])*(\.size\(\)\[\d+\])?", name)
    return found is not None and found[1] not in output.root_tx.f_code.co_freevars


def stack_name(source: Any) -> str:
    """The name that `nn_module_stack` has for a module."""
    return re.sub(
        r"\._(?:modules|parameters|buffers)\[(['\"])([^'\"\]]+)\1\]", r".\2", str(source.name)
    )
