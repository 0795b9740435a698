"""A model's weights as a program uses them: fetched once, and again when the model changed them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem, is_
from typing import Any

import torch

from hotstart import _torch
from hotstart.errors import ContractError, ModelMismatch
from hotstart.ir import Contract, WeightSpec
from hotstart.runtime.contract import TENSOR_TYPES, is_lazy_view
from hotstart.runtime.layout import strides_fit
from hotstart.tensors import Model, Place, modules, places_by_name


@dataclass(frozen=True)
class Fetched:
    """A model's tensors at one time.

    Attributes:
        tensors: the tensors of the table, by slot.
        current: whether fetching again would find the same ones.
    """

    tensors: list[torch.Tensor]
    current: Callable[[], bool]


class Weights:
    """The tensors of a parameter table, wherever the model keeps them.

    What was fetched is current until a parameter, buffer or module is replaced (`load_state_dict`
    with `assign=True`, `.to()` on buffers, assignment), a tensor gets other metadata or memory in
    place (`.to()` and `.half()` set `.data` of the same parameter), or a module whose forward asks
    for its mode is put into the other one.
    """

    def __init__(
        self, model: Model, contract: Contract, captured: Mapping[int, torch.Tensor]
    ) -> None:
        self._model = model
        self._specs = contract.weights
        self._modes = contract.modes
        self._captured = captured

    def fetch(self) -> Fetched:
        """The tensors as they are now.

        Raises:
            ModelMismatch: tensors that are missing or do not fit, each named.
            ContractError: a module is in another mode, training or evaluation, than at the build.
        """
        # Modules before tensors: if another thread replaces one meanwhile, what is found inside
        # the new one is not taken for the old one's, and the next call fetches again.
        by_path = dict(modules(self._model))
        self._require_modes(by_path)
        modes = [by_path[path] for path, _ in self._modes]
        places = places_by_name(self._model)
        problems: list[str] = []
        tensors: list[Any] = []
        kept: list[tuple[Place, Any]] = []
        for slot, spec in enumerate(self._specs):
            if spec.kind == "captured":
                tensors.append(self._captured[slot])
                continue
            found = [
                (place, place.get()) for place in map(places.get, (spec.name, *spec.ties)) if place
            ]
            tensor = found[0][1] if found and found[0][0].name == spec.name else None
            tensors.append(tensor)
            problems += _problems(spec, tensor)
            same = {place.name for place, other in found if other is tensor}
            problems += [
                f"{name}: expected the same tensor as {spec.name}, found another one or nothing"
                for name in spec.ties
                if name not in same
            ]
            kept += found
        if problems:
            raise ModelMismatch(problems)
        return Fetched(tensors, _watch(by_path, modes, kept, tensors))

    def _require_modes(self, by_path: Mapping[str, torch.nn.Module]) -> None:
        for path, training in self._modes:
            module = by_path.get(path)
            found = None if module is None else module.training
            if found != training:
                raise ContractError(
                    f"{path or 'model'}.training",
                    repr(found),
                    repr(training),
                    "call model.eval() or model.train(), or compile the model as it is",
                )


def _watch(
    by_path: Mapping[str, torch.nn.Module],
    modes: Iterable[torch.nn.Module],
    kept: Iterable[tuple[Place, Any]],
    tensors: Sequence[torch.Tensor],
) -> Callable[[], bool]:
    """A function that tells whether the model still keeps these tensors in these places.

    It runs in every call, so it compares in C and touches little memory: versions of mappings, then
    addresses and metadata of all tensors at once.
    """
    mappings: dict[int, dict[str, Any]] = {}
    owners: list[Mapping[str, Any]] = []
    keys: list[str] = []
    found: list[Any] = []
    watched: set[str] = set()
    steps: list[tuple[torch.nn.Module, str, torch.nn.Module]] = []
    for place, tensor in kept:
        if place.kind == "attribute":  # a module's other attributes may change as they like
            owners.append(place.owner)
            keys.append(place.key)
            found.append(tensor)
        else:
            mappings[id(place.owner)] = place.owner
        # The modules on the way to it: replacing one replaces the tensor.
        path = place.name.rpartition(".")[0]
        while path not in watched and path in by_path:
            watched.add(path)
            parent, _, child = path.rpartition(".")
            if parent not in by_path or parent == path:
                break
            mappings[id(by_path[parent]._modules)] = by_path[parent]._modules
            steps.append((by_path[parent], child, by_path[path]))
            path = parent
    for module in modes:
        owners.append(vars(module))
        keys.append("training")
        found.append(module.training)
    structure = _torch.MappingWatch(tuple(mappings.values()))
    metadata = _torch.TensorWatch(tensors)
    # From here on changes are noticed. What changed since the tensors were looked up is not.
    if any(place.get() is not tensor for place, tensor in kept) or any(
        parent._modules.get(child) is not module for parent, child, module in steps
    ):
        return _never

    def current() -> bool:
        try:
            same = structure.unchanged() and all(map(is_, map(getitem, owners, keys), found))
        except KeyError:  # removed
            return False
        return same and metadata.unchanged()

    return current


def _never() -> bool:
    return False


def _problems(spec: WeightSpec, tensor: Any) -> list[str]:
    if not isinstance(tensor, torch.Tensor):
        return [f"{spec.name}: expected {_describe(spec)}, found nothing"]
    fits = (
        type(tensor) in TENSOR_TYPES
        and tensor.layout is torch.strided
        and not is_lazy_view(tensor)
        and tensor.dtype == spec.dtype
        and tensor.device == spec.device
        and tuple(tensor.shape) == spec.shape
        and strides_fit(tensor, spec.stride)
    )
    if fits:
        return []
    return [f"{spec.name}: expected {_describe(spec)}, found {_describe_tensor(tensor)}"]


def _describe(spec: WeightSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)} with strides {list(spec.stride)} on {spec.device}"


def _describe_tensor(tensor: torch.Tensor) -> str:
    kind = "" if type(tensor) in TENSOR_TYPES else f"{type(tensor).__qualname__} "
    text = f"{kind}{tensor.dtype} {list(tensor.shape)}"
    if tensor.layout is not torch.strided:
        return f"{text} of layout {tensor.layout} on {tensor.device}"
    lazy = " (a conjugate or negative view)" if is_lazy_view(tensor) else ""
    return f"{text} with strides {list(tensor.stride())} on {tensor.device}{lazy}"
