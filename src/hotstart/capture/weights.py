"""The table of tensors a graph reads that are not arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from hotstart import _torch
from hotstart.ir import WeightSpec
from hotstart.tensors import Model, Place, places


class WeightTable:
    """Numbers the tensors that graphs of one model read. Shared by all captures of the model."""

    def __init__(self, model: Model) -> None:
        self._places: dict[int, list[Place]] = {}
        for place in places(model):
            self._places.setdefault(id(place.get()), []).append(place)
        self._slots: dict[int, int] = {}
        self._specs: list[WeightSpec] = []
        self._captured: dict[int, torch.Tensor] = {}

    @property
    def specs(self) -> tuple[WeightSpec, ...]:
        """What each numbered tensor is."""
        return tuple(self._specs)

    @property
    def captured(self) -> dict[int, torch.Tensor]:
        """Tensors that no module keeps (globals, closures), by slot; they are held alive here."""
        return dict(self._captured)

    def slot(self, tensor: torch.Tensor, source: str) -> int:
        """The number of a tensor; `source` names it if no module of the model keeps it."""
        known = self._slots.get(id(tensor))
        if known is not None:
            return known
        slot = self._slots[id(tensor)] = len(self._specs)
        kept = self._places.get(id(tensor))
        if kept is None:
            self._captured[slot] = tensor
        names = [source] if kept is None else list(dict.fromkeys(place.name for place in kept))
        self._specs.append(
            WeightSpec(
                name=names[0],
                kind="captured" if kept is None else kept[0].kind,
                dtype=tensor.dtype,
                device=tensor.device,
                shape=tuple(map(int, tensor.shape)),
                stride=tuple(map(int, tensor.stride())),
                ties=tuple(names[1:]),
            )
        )
        return slot


@contextlib.contextmanager
def weights_on(model: Model, device: torch.device) -> Iterator[None]:
    """While inside, tensors of `model` on the meta device are fake tensors on `device`.

    A model on meta has no device to trace for; the fakes stand for the weights it will get.
    """
    on_meta = [place for place in places(model) if place.get().device.type == "meta"]
    originals = [(place, place.get()) for place in on_meta]
    mode = _torch.fake_mode()
    stand_ins: dict[int, Any] = {}
    try:
        for place, tensor in originals:
            if id(tensor) not in stand_ins:
                with mode:
                    fake = torch.empty_strided(
                        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
                    )
                if isinstance(tensor, torch.nn.Parameter):
                    fake = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad)
                stand_ins[id(tensor)] = fake
            place.owner[place.key] = stand_ins[id(tensor)]
        yield
    finally:
        for place, tensor in originals:
            place.owner[place.key] = tensor
