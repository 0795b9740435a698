"""Propose the calls of a program for calls that were seen."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import torch
from msgspec.structs import replace

from hotstart.calls import Call
from hotstart.capture.dynamic_shapes import flat_dims
from hotstart.errors import OptionsError
from hotstart.observing.axes import Axis, Place, broadcast, learnt_axes
from hotstart.observing.bounds import Bounds, dims_of
from hotstart.observing.seen import SeenCall, SeenTarget
from hotstart.records.dims import DerivedDim
from hotstart.records.nested import Slot, Tree, children
from hotstart.records.trees import slots

LARGEST = 8
"""The most calls that are proposed: each is traced on its own."""


class Proposal(msgspec.Struct, frozen=True):
    """A call of a program to be, for calls of one form.

    Attributes:
        seen: the calls, those in the most frequent layout first; the first is the example.
        axes: what varied.
        dims: the sizes of each axis, by name.
    """

    seen: tuple[SeenCall, ...]
    axes: tuple[Axis, ...]
    dims: Mapping[str, DerivedDim]

    @property
    def count(self) -> int:
        """Count the calls that were seen."""
        return sum(call.count for call in self.seen)

    def dim_at(self, place: Place) -> DerivedDim | None:
        """The sizes of a dimension; None if it is static."""
        found = (self.dims[axis.name] for axis in self.axes if place in axis.places)
        return next(found, None)

    def call(self, device: torch.device) -> Call:
        """The call as `hotstart.compile` takes it, with an example without contents."""
        first = self.seen[0]
        args, kwargs = first.arguments().call_with(first.example(device))
        return Call(args=args, kwargs=kwargs, dynamic_shapes=self.dynamic_shapes())

    def dynamic_shapes(self) -> dict[str, Any] | None:
        """The ranges of arguments by name, as `hotstart.compile` takes them; None without any."""
        shapes = {p.name: self._shapes(p.tree) for p in self.seen[0].parameters}
        return {name: found for name, found in shapes.items() if found} or None

    def _shapes(self, tree: Tree) -> dict[Any, Any]:
        """The dynamic dimensions of an argument, nested as it is."""
        if isinstance(tree, Slot):
            rank = len(self.seen[0].tensors[tree.index].shape)
            dims = ((dim, self.dim_at((tree.index, dim))) for dim in range(rank))
            return {dim: found.simplest for dim, found in dims if found is not None}
        inner = ((child.key, self._shapes(child.value)) for child in children(tree))
        return {key: found for key, found in inner if found}


def propose(
    target: SeenTarget, bounds: Bounds, dynamic_shapes: Mapping[str, Any]
) -> dict[str, Proposal]:
    """Propose calls, by name, the most frequent first.

    Args:
        target: what was seen.
        bounds: what the caller says of axes.
        dynamic_shapes: what the caller declares of parameters, as in `hotstart.compile`.

    Raises:
        OptionsError: nothing was seen, or calls that cannot be described, or that differ in too
            many ways; or what the caller says does not fit what was seen.
    """
    _require_described(target)
    forms = _forms(target.calls)
    _require_few(target, [calls[0] for calls in forms])
    own = [part for calls in forms for part in _parts(calls, dynamic_shapes)]
    _require_few(target, [calls[0] for calls, _ in own])
    learnt = [(calls, axes or _lent(calls, own)) for calls, axes in own]
    _require_known(bounds, learnt, dynamic_shapes, target)
    dims = dims_of([axes for _, axes in learnt], bounds)
    split = [part for calls, axes in learnt for part in _exact(calls, axes, bounds.exact)]
    _require_few(target, [calls[0] for calls, _ in split], bounds.exact)
    made = [_proposal(calls, axes, dims) for calls, axes in split]
    made.sort(key=lambda proposal: -proposal.count)
    return {f"main_{n}" if n > 1 else "main": each for n, each in enumerate(made, 1)}


def _forms(seen: Iterable[SeenCall]) -> list[list[SeenCall]]:
    """Group calls by form."""
    groups: dict[object, list[SeenCall]] = {}
    for call in seen:
        groups.setdefault(call.form, []).append(call)
    return list(groups.values())


def _parts(
    calls: list[SeenCall], dynamic_shapes: Mapping[str, Any]
) -> Iterator[tuple[list[SeenCall], list[Axis]]]:
    """Learn the axes of calls of one form, those apart that broadcast a tensor."""
    axes = _axes(calls, dynamic_shapes)
    differs = broadcast(axes)
    if differs is None:
        yield calls, axes
        return
    for wanted in (False, True):
        part = [c for c, is_so in zip(calls, differs, strict=True) if is_so == wanted]
        yield from _parts(part, dynamic_shapes)


def _axes(calls: Sequence[SeenCall], dynamic_shapes: Mapping[str, Any]) -> list[Axis]:
    """Learn the axes of calls of one form, beside those that are declared for it."""
    first = calls[0]
    example = first.example()
    declared: dict[Place, DerivedDim] = {}
    by_hand: set[int] = set()
    slot_at = {spec.path: slot for slot, spec in enumerate(first.tensors)}
    described = first.arguments()
    for parameter, value in zip(first.parameters, described.values(example), strict=True):
        wanted = dynamic_shapes.get(parameter.name)
        held = {slot.index for slot in slots(parameter.tree)}
        if parameter.name not in dynamic_shapes or not held:
            continue
        by_hand |= held
        for path, tensor, dims in flat_dims(parameter.name, value, wanted):
            ranks = ((dim + tensor.ndim if dim < 0 else dim, d) for dim, d in dims.items())
            declared |= {(slot_at[path], dim): d for dim, d in ranks}
    return learnt_axes(calls, declared, by_hand)


def _lent(
    calls: Sequence[SeenCall], others: Sequence[tuple[Sequence[SeenCall], Sequence[Axis]]]
) -> list[Axis]:
    """The axes of another form, for one that was seen once and has no other tensors."""
    if len(calls) > 1 or calls[0].count > 1:
        return []
    slot_at = {(spec.path, len(spec.shape)): slot for slot, spec in enumerate(calls[0].tensors)}
    for other, axes in others:
        known = {(spec.path, len(spec.shape)): n for n, spec in enumerate(other[0].tensors)}
        if axes and slot_at.keys() <= known.keys():
            slots_here = {known[key]: slot for key, slot in slot_at.items()}
            lent = [_moved(axis, slots_here, calls[0]) for axis in axes]
            if all(axis is None or len(set(axis.sizes)) == 1 for axis in lent):
                return [replace(a, sizes=a.sizes[:1]) for a in lent if a is not None]
    return []


def _moved(axis: Axis, slots_here: Mapping[int, int], call: SeenCall) -> Axis | None:
    """The same axis in another call, with the size of each of its places; None without any."""
    places = tuple((slots_here[slot], dim) for slot, dim in axis.places if slot in slots_here)
    if not places:
        return None
    sizes = tuple(call.shapes[slot][dim] for slot, dim in places)
    paths = tuple(f"{call.tensors[slot].path}[{dim}]" for slot, dim in places)
    return replace(axis, places=places, paths=paths, sizes=sizes)


def _exact(
    calls: Sequence[SeenCall], axes: Sequence[Axis], exact: Collection[str]
) -> Iterable[tuple[Sequence[SeenCall], Sequence[Axis]]]:
    """Split calls of one form by the sizes of axes that are taken as they are."""
    chosen = [axis for axis in axes if axis.name in exact]
    if not chosen:
        return [(calls, axes)]
    keys = list(zip(*(axis.sizes for axis in chosen), strict=True))
    kept = [axis for axis in axes if axis.name not in exact]
    return [
        ([c for c, own in zip(calls, keys, strict=True) if own == key], kept)
        for key in dict.fromkeys(keys)
    ]


def _proposal(
    calls: Sequence[SeenCall], axes: Sequence[Axis], dims: Mapping[str, DerivedDim]
) -> Proposal:
    layouts: Counter[object] = Counter()
    for call in calls:
        layouts[call.layouts] += call.count
    ordered = sorted(calls, key=lambda call: (-layouts[call.layouts], -call.count))
    own = {axis.name: dims[axis.name] for axis in axes}
    return Proposal(tuple(ordered), tuple(axes), own)


def _require_described(target: SeenTarget) -> None:
    if target.refused:
        raise OptionsError(
            f"{target.about}: expected calls that can be described, found {target.refused[0]} "
            "Observe only calls without such arguments."
        )
    if not target.calls:
        raise OptionsError(
            f"{target.about}: expected at least one call while it was observed, found none that "
            "returned. Call it inside the `with` block, through the object that is observed."
        )


def _require_few(
    target: SeenTarget, calls: Sequence[SeenCall], exact: Collection[str] = ()
) -> None:
    """Raise if there are too many calls to trace, naming what makes them many."""
    if len(calls) <= LARGEST:
        return
    if exact:
        raise OptionsError(
            f"exact: expected at most {LARGEST} calls of {target.about}, found {len(calls)} "
            f"combinations of sizes of {', '.join(sorted(exact))}. Leave axes out of `exact`."
        )
    values: dict[str, dict[str, None]] = {}
    for path, value in itertools.chain.from_iterable(call.constants() for call in calls):
        values.setdefault(path, {})[value] = None
    worst = max(values, key=lambda path: len(values[path]), default="")
    found = list(values.get(worst, ()))
    some = ", ".join(found[:5]) + (" and others" if len(found) > 5 else "")
    why = f"{worst} was {some}" if len(found) > 1 else "they pass other arguments"
    raise OptionsError(
        f"{target.about}: expected calls of at most {LARGEST} forms, found {len(calls)}: {why}. "
        "Every value that is no tensor is compiled on its own: pass it as a tensor, or observe "
        "only the values that the program is to serve."
    )


def _require_known(
    bounds: Bounds,
    learnt: Sequence[tuple[Sequence[SeenCall], Sequence[Axis]]],
    dynamic_shapes: Mapping[str, Any],
    target: SeenTarget,
) -> None:
    """Raise if the caller names an axis or parameter that there is none of, or bounds it twice."""
    axes = {axis.name: axis for _, found in learnt for axis in found}
    given: dict[str, Iterable[str]] = {
        "min": bounds.low,
        "max": bounds.high,
        "exact": bounds.exact,
        "multiples": bounds.multiples,
        "follow": bounds.follow,
    }
    for what, names in given.items():
        for name in names:
            if name not in axes:
                raise OptionsError(
                    f"{what}: expected axes that varied ({', '.join(axes) or 'none did'}), found "
                    f"{name!r}. A size that never varied is static: observe it at another size, "
                    "or declare it in dynamic_shapes."
                )
            if what != "follow" and name in bounds.follow:
                raise OptionsError(
                    f"{what}: axis {name!r} follows from others; say it of these instead"
                )
            if axes[name].declared is not None:
                raise OptionsError(
                    f"{what}: axis {name!r} is declared in dynamic_shapes; say it there"
                )
    known = {p.name for calls, _ in learnt for p in calls[0].parameters if any(slots(p.tree))}
    unknown = sorted(set(dynamic_shapes) - known)
    if unknown:
        raise OptionsError(
            f"dynamic_shapes: expected parameters of {target.about} with tensors "
            f"({', '.join(sorted(known)) or 'none'}), found {', '.join(unknown)}"
        )
