"""A model's weights as a program uses them: fetched once, and again when the model changed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import getitem, is_
from typing import Any

import torch

from hotstart import _torch
from hotstart.errors import ModelMismatch
from hotstart.ir import WeightSpec
from hotstart.tensors import Model, modules, places_by_name


class Weights:
    """The tensors of a parameter table, as the model has them now.

    `changed` notices a parameter, buffer or module that was replaced (`load_state_dict` with
    `assign=True`, `.to()` on buffers, assignment) and one whose metadata changed in place
    (`.to()` and `.half()` set `.data` of the same parameter).
    """

    def __init__(
        self, model: Model, specs: Sequence[WeightSpec], captured: Mapping[int, torch.Tensor]
    ) -> None:
        self._model = model
        self._specs = specs
        self._captured = captured
        self._owners: list[Mapping[str, Any]] = []
        self._keys: list[str] = []
        self._found: list[Any] = []
        self._metadata = _torch.MetadataGuard([])
        self._tensors: list[torch.Tensor] = []

    def changed(self) -> bool:
        """Whether `fetch` would find other tensors than it last did."""
        try:
            same = all(map(is_, map(getitem, self._owners, self._keys), self._found))
        except KeyError:
            return True
        return not (same and self._metadata.check(self._tensors))

    def fetch(self) -> list[torch.Tensor]:
        """The tensors of the table, by slot.

        Raises:
            ModelMismatch: tensors that are missing or do not fit, each named.
        """
        places = places_by_name(self._model)
        problems: list[str] = []
        tensors: list[Any] = []
        owners: list[Mapping[str, Any]] = []
        keys: list[str] = []
        for slot, spec in enumerate(self._specs):
            if spec.kind == "captured":
                tensors.append(self._captured[slot])
                continue
            place = places.get(spec.name)
            tensor = place.get() if place is not None else None
            tensors.append(tensor)
            problems += _problems(spec, tensor)
            for tie in spec.ties:
                tied = places.get(tie)
                if tied is None or tied.get() is not tensor:
                    problems.append(f"{tie}: was the same tensor as {spec.name}, is not any more")
            if place is not None:
                owners.append(place.owner)
                keys.append(place.key)
        if problems:
            raise ModelMismatch(problems)
        self._watch(owners, keys, tensors)
        return tensors

    def _watch(
        self, owners: list[Mapping[str, Any]], keys: list[str], tensors: list[torch.Tensor]
    ) -> None:
        used = {id(owner) for owner in owners}
        for _, module in modules(self._model):
            for name, child in module._modules.items():
                if child is not None and _holds(child, used):
                    owners.append(module._modules)
                    keys.append(name)
        self._owners, self._keys = owners, keys
        self._found = [owner[key] for owner, key in zip(owners, keys, strict=True)]
        self._metadata = _torch.MetadataGuard(tensors)
        self._tensors = tensors


def _holds(module: torch.nn.Module, owners: set[int]) -> bool:
    """Whether a module or one inside it keeps a tensor in one of these mappings."""
    return any(
        id(kept) in owners
        for inner in module.modules()
        for kept in (inner._parameters, inner._buffers, vars(inner))
    )


def _problems(spec: WeightSpec, tensor: Any) -> list[str]:
    if not isinstance(tensor, torch.Tensor):
        return [f"{spec.name}: expected {_describe(spec)}, found nothing"]
    fits = (
        tensor.dtype == spec.dtype
        and tensor.device == spec.device
        and tuple(tensor.shape) == spec.shape
        and tensor.stride() == spec.stride
    )
    if fits:
        return []
    found = (
        f"{tensor.dtype} {list(tensor.shape)} with strides {list(tensor.stride())} "
        f"on {tensor.device}"
    )
    return [f"{spec.name}: expected {_describe(spec)}, found {found}"]


def _describe(spec: WeightSpec) -> str:
    return (
        f"{spec.dtype} {list(spec.shape)} with strides {list(spec.stride)} on {spec.device}"
    )
