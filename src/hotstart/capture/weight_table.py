"""The table of tensors a graph reads that are not arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hotstart._torch.graphs.symbols import fake_mode, is_fake
from hotstart._torch.subclasses.inner_tensors import inner_names, put_together
from hotstart.capture.group_table import GroupTable
from hotstart.capture.plain import require_comparable, require_plain
from hotstart.dtypes import name_of
from hotstart.errors import CaptureError
from hotstart.model import Model, ModelIndex, Place
from hotstart.records.artifact import TakenApart, WeightSpec, Wrapping


class WeightTable:
    """Numbers the tensors that graphs of one model read. Shared by all captures of the model.

    Attributes:
        tensors: the tensors, by number.
        groups: the groups of processes that the graphs name.
    """

    def __init__(self, index: ModelIndex) -> None:
        self._index = index
        self._slots: dict[int, int] = {}
        self._specs: list[WeightSpec] = []
        self._captured: dict[int, torch.Tensor] = {}
        self._apart: dict[int, TakenApart] = {}
        self._wrappings: dict[Wrapping, int] = {}
        self.tensors: list[torch.Tensor] = []
        self.groups = GroupTable()

    @property
    def specs(self) -> tuple[WeightSpec, ...]:
        """The description of each tensor, by number."""
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
        kept = self._index.places_of(tensor)
        names = list(dict.fromkeys(place.name for place in kept)) or [source]
        for place in kept:
            self._take_apart(place.outermost)
        require_plain(names[0], tensor)
        if not kept and is_fake(tensor):
            raise CaptureError(
                f"{source}: expected a tensor of the caller or of the model, found one that was "
                "made to trace the model, so that no call has it. Compute it in forward, or pass "
                "it as an argument of its own."
            )
        slot = self._slots[id(tensor)] = len(self._specs)
        self.tensors.append(tensor)
        if not kept:
            self._captured[slot] = tensor
        self._specs.append(
            WeightSpec(
                name=names[0],
                kind=kept[0].kind if kept else "captured",
                dtype=name_of(tensor.dtype),
                device=str(tensor.device),
                shape=tuple(map(int, tensor.shape)),
                stride=tuple(map(int, tensor.stride())),
                ties=tuple(names[1:]),
            )
        )
        return slot

    def inner(self, tensor: torch.Tensor, path: Sequence[str], source: str) -> torch.Tensor:
        """Return an inner tensor of a weight of a subclass.

        Args:
            tensor: the weight.
            path: the attributes that lead to the inner tensor.
            source: the name of that.

        Raises:
            CaptureError: no module keeps the weight, or it keeps the inner tensor elsewhere.
        """
        name = source.removesuffix("." + ".".join(path))
        if not self._index.places_of(tensor):
            require_plain(name, tensor)
        for attribute in path:
            if attribute not in vars(tensor):
                require_plain(name, tensor)
            tensor = vars(tensor)[attribute]
        return tensor

    def _take_apart(self, place: Place) -> None:
        """Note the weight of a subclass at a place; of a plain one, nothing."""
        tensor = place.get()
        if id(tensor) in self._apart or not inner_names(tensor):
            return
        names = [each.name for each in self._index.places_of(tensor)]
        wrapping = require_comparable(names[0], tensor)
        number = self._wrappings.setdefault(wrapping, len(self._wrappings))
        self._apart[id(tensor)] = TakenApart(names[0], tuple(dict.fromkeys(names[1:])), number)

    @property
    def taken_apart(self) -> tuple[TakenApart, ...]:
        """The weights of tensor subclasses whose inner tensors are in the table."""
        return tuple(self._apart.values())

    @property
    def wrappings(self) -> tuple[Wrapping, ...]:
        """The wrapping of each of these (all but its inner tensors), by number."""
        return tuple(self._wrappings)


@contextlib.contextmanager
def traceable(model: Model, device: torch.device) -> Iterator[ModelIndex]:
    """Replace tensors of `model` on the meta device by fake tensors on `device`, while inside.

    A model on meta has no device to trace for; the fakes stand for the weights it will get. Yields
    the index of the model with them.
    """
    index = ModelIndex(model)
    _refuse_untraceable(index)
    held = ((place, place.get()) for place in index.places)
    originals = [(place, tensor) for place, tensor in held if tensor.device.type == "meta"]
    mode = fake_mode()
    stand_ins: dict[int, Any] = {}
    try:
        for place, tensor in originals:
            if id(tensor) not in stand_ins:
                with mode:
                    fake = _on(device, tensor)
                if isinstance(tensor, torch.nn.Parameter):
                    fake = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad)
                stand_ins[id(tensor)] = fake
            place.owner[place.key] = stand_ins[id(tensor)]
        yield ModelIndex(model) if originals else index
    finally:
        for place, tensor in originals:
            place.owner[place.key] = tensor


def _refuse_untraceable(index: ModelIndex) -> None:
    """Raise for nested tensors, on which Dynamo fails without a reason."""
    for place in index.places:
        if place.get().is_nested:
            require_plain(place.name, place.get())


def _on(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """Make a tensor like another on a device; of a subclass, with inner tensors on it."""
    names = inner_names(tensor)
    if names:
        inner = {name: _on(device, getattr(tensor, name)) for name in names}
        return put_together(tensor, inner)
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
