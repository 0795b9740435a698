"""Refuse a forward that sets an attribute which it, or another call of the model, has read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from hotstart.capture.captured import AttributeUpdate, Captured
from hotstart.errors import CaptureError
from hotstart.guards.structure import Look
from hotstart.model import ModelIndex
from hotstart.records.guards import Guard
from hotstart.records.nested import Slot
from hotstart.records.trees import build


def require_lasting(index: ModelIndex, graphs: Sequence[Captured]) -> None:
    """Require that guards still hold after everything that calls set on modules.

    Every call of a program does what was traced. If the first call of the model changed what the
    second reads, the second would do something else.

    Raises:
        CaptureError: a call sets what it, or another graph of the model, has read.
    """
    updates = {(u.owner, u.name, repr(u.value)): u for graph in graphs for u in graph.updates}
    for update in updates.values():
        module = index.modules[update.owner]
        if _keeps_a_tensor(module, update):
            continue
        kinds = (graph.read.modules.get(update.owner) for graph in graphs)
        guards = [guard for kind in kinds if kind is not None for guard in kind.guards]
        before = _texts(guards, module)
        with _set(module, update):
            after = _texts(guards, module)
        if before != after:
            raise CaptureError(
                f"forward sets {update.owner or 'the model'}.{update.name}, and what it does "
                "depends on what was there before. If it fills a cache, call the model once before "
                "it is compiled; else pass what changes as an argument."
            )


def _keeps_a_tensor(module: torch.nn.Module, update: AttributeUpdate) -> bool:
    """Tell whether one tensor replaces another; the checks of weights notice that."""
    is_tensor = isinstance(update.value, Slot) and update.value.kind in ("arg", "out", "weight")
    own = (vars(module), module._buffers, module._parameters)
    return is_tensor and any(isinstance(held.get(update.name), torch.Tensor) for held in own)


@contextlib.contextmanager
def _set(module: torch.nn.Module, update: AttributeUpdate) -> Iterator[None]:
    """Set an attribute as a call leaves it, while inside; tensors and sizes equal nothing."""
    attributes = vars(module)
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
