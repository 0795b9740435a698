"""A model's weights as a program uses them: fetched once, and again when the model changed them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import getitem, is_
from typing import Any

import torch

from hotstart._torch.running.watches import TensorWatch, watch_mappings
from hotstart.dtypes import dtype_of
from hotstart.errors import ContractError, ModelMismatch
from hotstart.guards.compare import Guards
from hotstart.guards.watch import Sealed, all_hold
from hotstart.guards.wrapping import compare_wrappings
from hotstart.model import Finder, Model, Place
from hotstart.records.artifact import Artifact, Requirements, WeightSpec
from hotstart.records.guards import Change
from hotstart.records.shapes import is_laid_out
from hotstart.records.standalone import LeftOut
from hotstart.runtime.entry.refusal_words import NO_PARAMETER, described_weight, other_model
from hotstart.runtime.tensors import TENSOR_TYPES, TensorMemory, describe_tensor, is_lazy_view
from hotstart.runtime.weights.released import Released
from hotstart.runtime.weights.weight_source import Fetched

COUNTER = "num_batches_tracked"
"""The buffer in which a batch normalisation counts what it has learnt its statistics from."""


def weights_of(model: Model, artifact: Artifact, compare_code: bool = True) -> Weights:
    """Return a model as the source of an artifact's weights.

    Args:
        model: keeps the weights.
        artifact: says what the model must bring.
        compare_code: whether functions that were traced must be what they were.
    """
    return Weights(model, artifact.requirements, dict(artifact.captured), compare_code)


class Weights:
    """The tensors of a parameter table, wherever the model keeps them: a `Source`.

    What was fetched is current until a parameter, buffer or module is replaced (`load_state_dict`
    with `assign=True`, `.to()` on buffers, assignment), a tensor gets other metadata or memory in
    place (`.to()` and `.half()` set `.data` of the same parameter), or a module whose forward asks
    for its mode is put into the other one.
    """

    def __init__(
        self,
        model: Model,
        requirements: Requirements,
        captured: Mapping[int, torch.Tensor],
        compare_code: bool = True,
    ) -> None:
        self._model = model
        self._requirements = requirements
        self._captured = captured
        self._names = {n for spec in requirements.weights for n in (spec.name, *spec.ties)}
        self._names.update(n for one in requirements.taken_apart for n in (one.name, *one.ties))
        self._names.update(requirements.unread)
        self._guards = Guards(model, requirements, captured, compare_code)

    def forget(self) -> None:
        """Compare everything when fetched next, also what is not watched."""
        self._guards.forget()

    def owners(self, paths: Sequence[str]) -> list[Any]:
        """Return the modules at some paths."""
        return [*map(Finder(self._model).module, paths)] if paths else []

    def values(self) -> list[Any]:
        """List what the model keeps now by slot, compared with nothing; None for nothing."""
        finder = Finder(self._model)
        found: list[Any] = []
        for slot, spec in enumerate(self._requirements.weights):
            place = None if spec.kind == "captured" else finder.place(spec.name)
            held = self._captured.get(slot) if spec.kind == "captured" else None
            found.append(held if place is None else place.get())
        return found

    def left_out(self) -> list[LeftOut]:
        """List the buffers that are not persistent, and plain attributes, as they are now."""
        finder = Finder(self._model)
        found: list[LeftOut] = []
        for slot, spec in enumerate(self._requirements.weights):
            places = [finder.place(name) for name in (spec.name, *spec.ties)]
            if spec.kind == "captured" or any(_is_saved(finder, place) for place in places):
                continue
            tensor = None if places[0] is None else places[0].get()
            has_values = isinstance(tensor, torch.Tensor) and tensor.device.type != "meta"
            found.append(LeftOut(slot, tensor if has_values else None))
        return found

    def release(self, memory: Collection[int]) -> tuple[dict[int, torch.Tensor], int]:
        """Replace parameters in some memory by stand-ins in the model, as `Source` says."""
        finder = Finder(self._model)
        stand_ins: dict[int, torch.Tensor] = {}
        freed: dict[int, int] = {}
        for spec in self._requirements.weights:
            if spec.kind != "parameter":
                continue
            for place in map(finder.place, (spec.name, *spec.ties)):
                tensor = None if place is None else place.get()
                if place is None or tensor is None or type(tensor) is Released:
                    continue
                if place.within is not None:
                    continue  # a tensor of a subclass computes with it, which no stand-in can
                storage = tensor.untyped_storage()
                if storage.data_ptr() in memory:
                    freed[storage.data_ptr()] = storage.nbytes()
                    stand_in = stand_ins.setdefault(id(tensor), Released.of(tensor, spec.name))
                    place.owner[place.key] = stand_in
        return stand_ins, sum(freed.values())

    def fetch(self) -> Fetched:
        """The tensors as they are now.

        Raises:
            ModelMismatch: tensors that are missing or do not fit, and guards that fail, each named.
            ContractError: a module is in another mode, training or evaluation, than at the build.
        """
        finder = Finder(self._model)
        modes = self._modules_in_mode(finder)
        tensors: list[Any] = []
        problems, kept = compare_wrappings(self._requirements, finder)
        others = tuple(f"{name}." for name, *_ in problems)  # whose inner tensors say no more
        for slot, spec in enumerate(self._requirements.weights):
            if spec.kind == "captured":
                tensors.append(self._captured[slot])
                continue
            places = map(finder.place, (spec.name, *spec.ties))
            found = [(place, place.get()) for place in places if place is not None]
            tensor = found[0][1] if found and found[0][0].name == spec.name else None
            tensors.append(tensor)
            kept += found
            if spec.name.startswith(others):
                continue
            problems += problems_of(spec, tensor)
            if spec.ties:
                same = {place.name for place, other in found if other is tensor}
                problems += [
                    (name, f"the same tensor as {spec.name}", "another or nothing")
                    for name in spec.ties
                    if name not in same
                ]
        problems += [
            (name, NO_PARAMETER, "one")
            for name in finder.parameter_names()
            if name not in self._names
        ]
        paths = {place.outermost.name.rpartition(".")[0] for place, _ in kept}
        problems = self._guards.changes(finder, paths) + problems
        problems = problems or TensorMemory().misplaced(self._requirements.weights, tensors)
        if problems:
            raise other_model(problems, other_dtypes(self._requirements.weights, tensors))
        counters: dict[int, list[torch.Tensor]] = {}
        for place, tensor in kept:
            counters.setdefault(id(tensor), []).extend(_counting(place))
        return Fetched(tensors, _watch(modes, kept, tensors, self._guards.sealed), counters)

    def _modules_in_mode(self, finder: Finder) -> list[torch.nn.Module]:
        """The modules whose mode forward reads, which are in the mode of the build."""
        found: list[torch.nn.Module] = []
        for path, training in self._requirements.modes:
            module = finder.module(path)
            if module is None:
                raise ModelMismatch([(path or "model", "a module", "nothing")])
            if module.training != training:
                raise ContractError.other_mode(path, module.training)
            found.append(module)
        return found


def _watch(
    modes: Iterable[torch.nn.Module],
    kept: Iterable[tuple[Place, Any]],
    tensors: Sequence[torch.Tensor],
    guards: Sealed | None,
) -> Callable[[], bool]:
    """A function that tells whether modules still keep these tensors in these places.

    It runs in every call, so it compares in C and touches little memory: versions of mappings, then
    addresses and metadata of all tensors at once. Dicts that `guards` watch are left to them.
    """
    if guards is None:
        return _never
    mappings: dict[int, dict[str, Any]] = {}
    owners: list[Mapping[str, Any]] = []
    keys: list[str] = []
    found: list[Any] = []
    for place, tensor in kept:
        if place.kind == "attribute":  # a module's other attributes may change as they like
            owners.append(place.owner)
            keys.append(place.key)
            found.append(tensor)
        else:
            mappings[id(place.owner)] = place.owner
    for module in modes:
        owners.append(vars(module))
        keys.append("training")
        found.append(module.training)
    checks: list[Callable[[], bool]] = []
    if others := [held for held in mappings.values() if id(held) not in guards.mappings]:
        checks.append(watch_mappings(others).unchanged)
    if owners:
        checks.append(lambda: all(map(is_, map(getitem, owners, keys), found)))
    outers = {id(p.owner): (p.within.get(), p.owner) for p, _ in kept if p.within is not None}
    if outers:  # `swap_tensors`, by which `.to()` and `load_state_dict` change them, swaps the dict
        swapped, dicts = zip(*outers.values(), strict=True)
        checks.append(lambda: all(map(is_, map(vars, swapped), dicts)))
    checks += guards.checks
    if unreleased := [tensor for tensor in tensors if type(tensor) is not Released]:
        checks.append(TensorWatch(unreleased).unchanged)
    # From here on changes are noticed, and those since the tensors were looked up are found now.
    if any(place.get() is not tensor for place, tensor in kept):
        return _never
    return all_hold(checks)


def _counting(place: Place) -> Iterator[torch.Tensor]:
    """List the tensors whose versions tell of writes to another, besides its own."""
    if place.within is not None:
        yield place.within.get()
        yield from _counting(place.within)
    elif place.kind == "buffer" and isinstance(place.owner.get(COUNTER), torch.Tensor):
        yield place.owner[COUNTER]


def _never() -> bool:
    return False


def _is_saved(finder: Finder, place: Place | None) -> bool:
    """Tell whether `state_dict` has the tensor at a place."""
    if place is None or place.kind == "attribute":
        return False
    place = place.outermost
    module = finder.module(place.name.rpartition(".")[0])
    return module is not None and place.key not in module._non_persistent_buffers_set


def problems_of(spec: WeightSpec, tensor: Any) -> list[Change]:
    """List why a tensor is not the one that a table of weights asks for; nothing if it is."""
    if not isinstance(tensor, torch.Tensor):
        return [(spec.name, described_weight(spec), "nothing")]
    if type(tensor) is Released:  # packed, and of the shape that it had
        return []
    fits = (
        type(tensor) in TENSOR_TYPES
        and tensor.layout is torch.strided
        and not is_lazy_view(tensor)
        and tensor.dtype == dtype_of(spec.dtype)
        and tensor.device == torch.device(spec.device)
        and tuple(tensor.shape) == spec.shape
        and is_laid_out(spec.shape, tensor.stride(), spec.stride)
    )
    if fits:
        return []
    return [(spec.name, described_weight(spec), _describe_tensor(tensor))]


def other_dtypes(specs: Sequence[WeightSpec], tensors: Sequence[Any]) -> set[tuple[str, str]]:
    """Collect the dtypes of tensors that have another one than a table asks for: wanted, found."""
    return {
        (spec.dtype, found)
        for spec, tensor in zip(specs, tensors, strict=True)
        if isinstance(tensor, torch.Tensor)
        and (found := str(tensor.dtype).removeprefix("torch.")) != spec.dtype
    }


def _describe_tensor(tensor: torch.Tensor) -> str:
    text = describe_tensor(tensor)
    return f"{text}, strides {list(tensor.stride())}" if tensor.layout is torch.strided else text
