"""Learn the axes of calls of one form: which sizes varied, which varied together, how far.

A dimension whose size is the same in all calls is static. Dimensions whose sizes are equal in every
call are one axis. Its range is what was seen, rounded outwards to powers of two: sizes of 5 to 40
make 4..64, 3 to 4 make 2..4, and 0 stays 0.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from hotstart.observing.seen import SeenCall
from hotstart.records.dims import DerivedDim, DerivedSize

Place = tuple[int, int]
"""A dimension of a tensor: slot and number of the dimension."""


class Axis(msgspec.Struct, frozen=True):
    """Dimensions whose sizes varied together.

    Attributes:
        name: of the axis.
        places: its dimensions, in order.
        paths: the same as text, such as `input_ids[1]`.
        sizes: the size in each call, in the order of the calls.
        declared: what the caller declared for it, if anything.
    """

    name: str
    places: tuple[Place, ...]
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    declared: DerivedDim | None = None


def learnt_axes(
    calls: Sequence[SeenCall], declared: Mapping[Place, DerivedDim], by_hand: Container[int]
) -> list[Axis]:
    """The axes of calls that have one form.

    Args:
        calls: the calls; they differ in sizes or layouts.
        declared: the dimensions that the caller declared. Others that always had the size of one
            of them are of its axis; where it is several, of that with the same number.
        by_hand: slots of which the caller declared all that is dynamic.
    """
    axes = _declared_axes(calls, declared)
    taken = {root.name for dim in declared.values() for root, _ in dim.terms}
    for place in _places(calls[0]):
        sizes = _sizes(calls, place)
        if place in declared or len(set(sizes)) == 1 or place[0] in by_hand:
            continue
        path = _path(calls[0], place)
        at = _sharing(axes, sizes, place[1])
        if at is None:
            name = _name(calls[0], place, taken, _is_image(calls, place[0]))
            axes.append(Axis(name, (place,), (path,), sizes))
            taken.add(axes[-1].name)
        else:
            found = axes[at]
            axes[at] = replace(found, places=(*found.places, place), paths=(*found.paths, path))
    return axes


def rounded(sizes: Iterable[int]) -> tuple[int, int]:
    """The smallest and largest size of a range: those seen, outwards to powers of two."""
    low, high = min(sizes), max(sizes)
    return (1 << low.bit_length() >> 1, 1 << max(high - 1, 0).bit_length())


def relations(axes: Sequence[Axis]) -> dict[str, DerivedSize]:
    """Find the axes that follow from others in all calls, by name, and how.

    One follows from another that it is a multiple of, or so much larger than; in at least three
    sizes, both; or it is so much larger than the sum of two others.
    """
    found: dict[str, DerivedSize] = {}
    roots: list[Axis] = []
    for axis in sorted(axes, key=lambda each: each.sizes):
        for part in itertools.chain(([one] for one in roots), itertools.combinations(roots, 2)):
            size = _following(axis, sorted(part, key=axes.index))
            if size is not None:
                found[axis.name] = size
                break
        else:
            roots.append(axis)
    return found


def _following(axis: Axis, parts: Sequence[Axis]) -> DerivedSize | None:
    """Express an axis by others, if it follows from them in all calls."""
    seen = sorted(set(zip(*(part.sizes for part in parts), axis.sizes, strict=True)))
    if any(len(set(part.sizes)) < 2 for part in parts) or len(seen) <= len(parts):
        return None
    tried = [1]
    if len(parts) == 1 and seen[0][0] != seen[1][0]:
        tried.append((seen[1][1] - seen[0][1]) // (seen[1][0] - seen[0][0]))
    for factor in tried:
        rests = {size - factor * sum(others) for *others, size in seen}
        may_be_chance = factor > 1 and rests != {0} and len(seen) < 3
        if factor >= 1 and len(rests) == 1 and not may_be_chance:
            return DerivedSize(tuple((part.name, factor) for part in parts), rests.pop())
    return None


def _declared_axes(calls: Sequence[SeenCall], declared: Mapping[Place, DerivedDim]) -> list[Axis]:
    places: dict[str, list[Place]] = {}
    for place, dim in declared.items():
        places.setdefault(str(dim), []).append(place)
    return [
        Axis(
            name,
            tuple(own),
            tuple(_path(calls[0], place) for place in own),
            _sizes(calls, own[0]),
            declared[own[0]],
        )
        for name, own in places.items()
    ]


def _places(call: SeenCall) -> Iterator[Place]:
    for slot, spec in enumerate(call.tensors):
        yield from ((slot, dim) for dim in range(len(spec.shape)))


def _sizes(calls: Sequence[SeenCall], place: Place) -> tuple[int, ...]:
    slot, dim = place
    return tuple(call.shapes[slot][dim] for call in calls)


def _sharing(axes: Sequence[Axis], sizes: tuple[int, ...], dim: int) -> int | None:
    """The axis that has these sizes, by number; that with a dimension of this number, if any."""
    same = [at for at, axis in enumerate(axes) if axis.sizes == sizes]
    nearer = [at for at in same if any(own == dim for _, own in axes[at].places)]
    return next(iter([*nearer, *same]), None)


def _is_image(calls: Sequence[SeenCall], slot: int) -> bool:
    """Tell whether both of the last two dimensions of a tensor with four of them varied."""
    shapes = {call.shapes[slot] for call in calls}
    return all(len({shape[dim] for shape in shapes if len(shape) == 4}) > 1 for dim in (2, 3))


def broadcast(axes: Sequence[Axis]) -> list[bool] | None:
    """Tell which calls broadcast a tensor that has the size of another axis in all others.

    Sizes of 1 where a dimension of the same number has more in the call, and equal sizes in at
    least two calls of different ones, are no chance.

    Returns:
        For each call, whether it broadcasts; None if no axis is of this kind.
    """
    for axis in axes:
        for other in axes:
            pairs = list(zip(axis.sizes, other.sizes, strict=True))
            differ = [size != full for size, full in pairs]
            equal = {full for size, full in pairs if size == full}
            aligned = {dim for _, dim in axis.places} & {dim for _, dim in other.places}
            may_be_one = all(size in (1, full) for size, full in pairs)
            if aligned and may_be_one and any(differ) and len(equal - {1}) > 1:
                return differ
    return None


def _path(call: SeenCall, place: Place) -> str:
    return f"{call.tensors[place[0]].path}[{place[1]}]"


def _name(call: SeenCall, place: Place, taken: set[str], is_image: bool) -> str:
    """A name for an axis, after the first dimension that has it.

    The first dimension of a tensor is `batch`, the second of two or three `seq`, the third of four
    `height` or `length`, the last of four `width`; others, and second ones of a name, are called
    after the argument.
    """
    slot, dim = place
    spec = call.tensors[slot]
    rank = len(spec.shape)
    usual = {(2, 1): "seq", (3, 1): "seq", (4, 2): "height", (4, 3): "width"}
    if not is_image:
        usual[4, 2] = "length"  # of a cache of keys, such as [batch, heads, length, width]
    name = "batch" if dim == 0 else usual.get((rank, dim), "")
    if not name or name in taken:
        name = re.sub(r"[\W_]+", "_", f"{spec.path}_{dim}").strip("_")
    while not name.isidentifier() or name in taken:
        name = f"_{name}"
    return name
