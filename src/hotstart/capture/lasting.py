"""Refuse a forward that sets an attribute which it, or another call of the model, has read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from hotstart.capture.captured import AttributeUpdate, Captured, example_of
from hotstart.errors import CaptureError
from hotstart.guards.structure import Look
from hotstart.model import ModelIndex
from hotstart.records.artifact import WeightSpec
from hotstart.records.guards import Guard
from hotstart.records.nested import Slot, Tree
from hotstart.records.trees import build


def require_lasting(
    index: ModelIndex, graphs: Sequence[Captured], weights: Sequence[WeightSpec]
) -> None:
    """Require that guards still hold after everything that calls set on modules.

    Every call of a program does what was traced. If the first call of the model changed what the
    second reads, the second would do something else. `weights` are the tensors that are read.

    Raises:
        CaptureError: a call sets what it, or another graph of the model, has read.
    """
    updates = {
        (u.owner, u.name, repr(u.value), kept): u
        for graph in graphs
        for u in graph.updates
        for kept in [_keeps_a_tensor(index.modules[u.owner], u, graph)]
    }
    read = {name for weight in weights for name in (weight.name, *weight.ties)}
    for (*_, kept), update in updates.items():
        module = index.modules[update.owner]
        if kept:
            continue
        kinds = (graph.read.modules.get(update.owner) for graph in graphs)
        guards = [guard for kind in kinds if kind is not None for guard in kind.guards]
        before = _texts(guards, module)
        with _set(module, update):
            after = _texts(guards, module)
        if before != after or update.path in read:
            raise CaptureError(
                f"forward sets {update.owner or 'the model'}.{update.name}, and what it does "
                "depends on what was there before. If one call fills a cache for all later ones, "
                "call the model once before it is compiled. Keep a count in a buffer; make what "
                "depends on sizes in every call; pass anything else as an argument."
            )


def _keeps_a_tensor(module: torch.nn.Module, update: AttributeUpdate, graph: Captured) -> bool:
    """Tell whether a tensor replaces another of its dtype and shape."""
    is_tensor = isinstance(update.value, Slot) and update.value.kind in ("arg", "out", "weight")
    own = (vars(module), module._buffers, module._parameters)
    found = (held.get(update.name) for held in own)
    old = [tensor for tensor in found if isinstance(tensor, torch.Tensor)]
    new = _example(update.value, graph)
    if not is_tensor or not old:
        return False
    if new is None:
        return True
    # Expressions over sizes are equal to no number, and nothing asks torch if they could be.
    sizes = [graph.expression(size) for size in new.shape]
    return new.dtype == old[0].dtype and sizes == [*old[0].shape]


def _example(value: Tree, graph: Captured) -> torch.Tensor | None:
    """The fake tensor of a result or an argument; None for anything else."""
    if not isinstance(value, Slot):
        return None
    nodes = dict(zip(graph.inputs, graph.graph.find_nodes(op="placeholder"), strict=True))
    node: Any = nodes.get(value)
    if value.kind == "out":
        (output,) = graph.graph.find_nodes(op="output")
        node = output.args[0][value.index]
    example = example_of(node) if isinstance(node, fx.Node) else None
    return example if isinstance(example, torch.Tensor) else None


@contextlib.contextmanager
def _set(module: torch.nn.Module, update: AttributeUpdate) -> Iterator[None]:
    """Set an attribute as a call leaves it, while inside; tensors and sizes equal nothing."""
    own = (module._buffers, module._parameters)
    attributes: Any = next((held for held in own if update.name in held), vars(module))
    missing = object()
    old = attributes.get(update.name, missing)
    attributes[update.name] = build(update.value, lambda _: object())
    try:
        yield
    finally:
        if old is missing:
            del attributes[update.name]
        else:
            attributes[update.name] = old


def _texts(guards: Sequence[Guard], module: torch.nn.Module) -> list[str]:
    """The texts of guards, as they are now."""
    look = Look()
    return [look.text(guard.kind, guard.steps, module) for guard in guards]
