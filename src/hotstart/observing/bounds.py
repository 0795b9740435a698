"""Give the axes of observed calls their sizes: what was seen, and what the caller says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from hotstart.errors import OptionsError
from hotstart.observing.axes import Axis, relations, rounded
from hotstart.records.dims import DerivedDim, Dim


class Bounds(msgspec.Struct, frozen=True):
    """Bounds of axes that the caller gives, by name.

    Attributes:
        low: smallest sizes.
        high: largest sizes.
        exact: axes of which each combination of sizes that was seen is a call of its own.
        multiples: axes that take multiples only, and of what.
        follow: axes that follow from others, as they did in every call.
    """

    low: Mapping[str, int] = {}
    high: Mapping[str, int] = {}
    exact: Collection[str] = ()
    multiples: Mapping[str, int] = {}
    follow: Collection[str] = ()


def dims_of(forms: Sequence[Sequence[Axis]], bounds: Bounds) -> dict[str, DerivedDim]:
    """The sizes of every axis; one name means the same in all forms.

    Args:
        forms: the axes of the calls of each form.
        bounds: what the caller says of axes.

    Raises:
        OptionsError: bounds leave out a size that was seen, or do not fit what was.
    """
    seen: dict[str, set[int]] = {}
    for axis in (axis for axes in forms for axis in axes):
        seen.setdefault(axis.name, set()).update(axis.sizes)
    made: dict[str, DerivedDim] = {
        axis.name: axis.declared for axes in forms for axis in axes if axis.declared is not None
    }
    for name, sizes in seen.items():
        if name not in bounds.follow:
            if name not in made:
                made[name] = _ranged(name, sizes, bounds)
            _require_served(name, sizes, made[name])
    return {name: made.get(name) or _following(name, forms, made) for name in seen}


def _ranged(name: str, sizes: Collection[int], bounds: Bounds) -> DerivedDim:
    """A range of sizes, of multiples only where the caller says so."""
    low, high = rounded(sizes)
    low, high = bounds.low.get(name, low), bounds.high.get(name, high)
    factor = bounds.multiples.get(name, 1)
    return factor * Dim(name, min=-(-low // factor), max=high // factor)


def _require_served(name: str, sizes: Collection[int], dim: DerivedDim) -> None:
    refused = sorted(size for size in sizes if not dim.serves(size))
    if refused:
        raise OptionsError(
            f"axis {name!r}: expected a range with every size that was seen, found {dim.served}, "
            f"without {', '.join(map(str, refused))}. Widen it, or observe only calls that "
            "the program is to serve."
        )


def _following(
    name: str, forms: Sequence[Sequence[Axis]], made: Mapping[str, DerivedDim]
) -> DerivedDim:
    """The sizes of an axis that follows from others, as it did in every call."""
    own = [relations(axes) for axes in forms if any(axis.name == name for axis in axes)]
    sizes = {found.get(name) for found in own}
    size = sizes.pop()
    if size is None or sizes:
        held = {f"{axis} == {other}" for found in own for axis, other in found.items()}
        raise OptionsError(
            "follow: expected axes that followed from others in every call "
            f"({', '.join(sorted(held)) or 'none did'}), found {name!r}"
        )
    total = DerivedDim((), size.plus)
    for axis, factor in size.terms:
        total = total + factor * (made.get(axis) or _following(axis, forms, made))
    return total
