"""Axes: what is dynamic, over which sizes, and how those sizes are split into variants."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hotstart.errors import OptionsError

IMAGES = (4, 5)
"""Dimensions of images and volumes, of which all strides count: see `is_laid_out`."""


class Interval(msgspec.Struct, frozen=True, order=True):
    """The sizes from `lo` to `hi`, both included."""

    lo: int
    hi: int

    def __contains__(self, size: int) -> bool:
        return self.lo <= size <= self.hi

    def __str__(self) -> str:
        return f"{self.lo}..{self.hi}"


Choice = Interval | int
"""One way to serve an axis: a range compiled symbolically, or one size compiled statically."""


@dataclass(frozen=True, init=False)
class Dim:
    """A named dynamic dimension. Every input dimension given the same name has the same size.

    Args:
        name: the axis' name.
        min: smallest size served. Default: the smallest in `ranges` and `sizes`, else 1.
        max: largest size served. Default: the largest in `ranges` and `sizes`; needed without them.
        ranges: inclusive `(low, high)` pairs, each compiled on its own with its bounds known to
            the compiler. Whatever of `min..max` they leave out is served by ranges of its own.
            Default: one range, `min..max`. An empty list: only `sizes` are served.
        sizes: single sizes compiled statically, which take precedence over ranges.

    Raises:
        OptionsError: the bounds are empty, negative, overlapping or missing.
    """

    name: str
    min: int
    max: int
    ranges: tuple[Interval, ...]
    sizes: tuple[int, ...]

    def __init__(
        self,
        name: str,
        min: int | None = None,
        max: int | None = None,
        ranges: Iterable[tuple[int, int]] | None = None,
        sizes: Iterable[int] = (),
    ) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise OptionsError(f"Dim name: got {name!r}, takes an identifier such as 'batch'")
        for what, given_as in (("ranges", ranges), ("sizes", sizes)):
            if given_as is not None and not isinstance(given_as, Iterable):
                raise OptionsError(f"Dim {name!r}: got {what} {given_as!r}, takes a list")
        exact = tuple(sorted({_size(name, size) for size in sizes}))
        given = None if ranges is None else sorted(_interval(name, pair) for pair in ranges)
        named = [*exact, *(end for r in given or () for end in (r.lo, r.hi))]
        low = _size(name, min) if min is not None else _least(named)
        if max is None and not named:
            raise OptionsError(f"Dim {name!r}: give max=, the largest size to serve")
        high = _size(name, max) if max is not None else sorted(named)[-1]
        if low > high:
            raise OptionsError(f"Dim {name!r}: min={low} is above max={high}")
        for size in named:
            if not low <= size <= high:
                raise OptionsError(f"Dim {name!r}: {size} lies outside min={low}..max={high}")
        for left, right in itertools.pairwise(given or ()):
            if right.lo <= left.hi:
                raise OptionsError(f"Dim {name!r}: ranges {left} and {right} overlap")
        whole = Interval(low, high)
        served = [whole] if given is None else _fill(given, whole) if given else []
        if not served and not exact:
            raise OptionsError(f"Dim {name!r}: neither ranges nor sizes to serve")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "min", low)
        object.__setattr__(self, "max", high)
        object.__setattr__(self, "ranges", tuple(_without(served, exact)))
        object.__setattr__(self, "sizes", exact)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Ranges first, then single sizes: every way this axis is served."""
        return (*self.ranges, *self.sizes)

    def serves(self, size: int) -> bool:
        """Tell whether some range or size covers `size`."""
        return size in self.sizes or any(size in r for r in self.ranges)

    def __str__(self) -> str:
        """The sizes that are served, such as `1..512` or `1..8 or 16`."""
        merged: list[Interval] = []
        for part in sorted([*self.ranges, *(Interval(size, size) for size in self.sizes)]):
            if merged and part.lo <= merged[-1].hi + 1:
                merged[-1] = Interval(merged[-1].lo, max(merged[-1].hi, part.hi))
            else:
                merged.append(part)
        return " or ".join(str(part.lo) if part.lo == part.hi else str(part) for part in merged)


def _size(name: str, size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise OptionsError(f"Dim {name!r}: got size {size!r}, takes an int of 0 or more")
    return size


def _interval(name: str, pair: tuple[int, int]) -> Interval:
    is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    if not is_pair and not isinstance(pair, Interval):
        raise OptionsError(f"Dim {name!r}: got range {pair!r}, takes a pair (low, high)")
    low, high = (pair.lo, pair.hi) if isinstance(pair, Interval) else pair
    low, high = _size(name, low), _size(name, high)
    if low > high:
        raise OptionsError(f"Dim {name!r}: range {low}..{high} is empty")
    return Interval(low, high)


def _least(named: list[int]) -> int:
    return sorted(named)[0] if named else 1


def _fill(ranges: list[Interval], whole: Interval) -> list[Interval]:
    """`ranges` plus ranges for what they leave out of `whole`."""
    filled, at = [], whole.lo
    for r in ranges:
        if r.lo > at:
            filled.append(Interval(at, r.lo - 1))
        filled.append(r)
        at = r.hi + 1
    if at <= whole.hi:
        filled.append(Interval(at, whole.hi))
    return filled


def _without(ranges: list[Interval], sizes: tuple[int, ...]) -> Iterable[Interval]:
    """`ranges` less the single sizes at their ends, which have variants of their own."""
    for r in ranges:
        lo, hi = r.lo, r.hi
        while lo in sizes and lo <= hi:
            lo += 1
        while hi in sizes and lo <= hi:
            hi -= 1
        if lo <= hi:
            yield Interval(lo, hi)


class Variant(msgspec.Struct, frozen=True):
    """One choice of range or size for every axis. Each variant is one stitched function.

    Attributes:
        choices: the range or size of each axis.
        where: Python expression over the axes, for a variant that serves only some of these sizes;
            empty if it serves all.
    """

    choices: tuple[tuple[str, Choice], ...]
    where: str = ""

    @property
    def name(self) -> str:
        """Such as `batch=1,seq=2..64`; `static` for a model without dynamic axes."""
        name = ",".join(f"{axis}={choice}" for axis, choice in self.choices) or "static"
        return f"{name} where {self.where}" if self.where else name

    def of(self, axis: str) -> Choice:
        """The choice this variant makes for `axis`."""
        return dict(self.choices)[axis]

    def intervals(self) -> dict[str, Interval]:
        """Every axis as an interval; a single size is an interval of one."""
        return {
            axis: choice if isinstance(choice, Interval) else Interval(choice, choice)
            for axis, choice in self.choices
        }

    def covers(self, sizes: Mapping[str, int]) -> bool:
        """Tell whether this variant serves a call with these sizes."""
        inside = all(sizes[axis] in interval for axis, interval in self.intervals().items())
        return inside and (not self.where or self._holds(sizes))

    def _holds(self, sizes: Mapping[str, int]) -> bool:
        # Written by hotstart, as the rest of what is in an artifact.
        return bool(eval(self.where, {"math": math}, dict(sizes)))


def spanned(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Count the elements from a tensor's first to its last in memory."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Tell whether two elements of a tensor may share memory; also said of some that interleave."""
    if 0 in shape:
        return False
    past = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size > 1:
            if step < past:
                return True
            past += (size - 1) * step
    return False


def labelled(call: str, variant: Variant) -> str:
    """The name of a variant where calls may have names."""
    return f"{call}: {variant.name}" if call else variant.name


def variants(dims: Sequence[Dim]) -> tuple[Variant, ...]:
    """Every combination of choices, those with the most ranges first."""
    combinations = itertools.product(*([(dim.name, c) for c in dim.choices] for dim in dims))
    made = [Variant(choices) for choices in combinations]
    return tuple(sorted(made, key=lambda v: sum(isinstance(c, int) for _, c in v.choices)))


def dense_strides(shape: Sequence[int], dim_order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor without gaps whose dimensions lie in memory in this order."""
    strides = [0] * len(shape)
    step = 1
    for dim in reversed(dim_order):
        strides[dim] = step
        step *= max(shape[dim], 1)
    return tuple(strides)


def strides_match(shape: Sequence[int], have: Sequence[int], want: Sequence[int]) -> bool:
    """Tell whether strides are the same wherever a size is not one."""
    return all(size == 1 or h == w for size, h, w in zip(shape, have, want, strict=True))


def is_laid_out(shape: Sequence[int], have: Sequence[int], want: Sequence[int]) -> bool:
    """Tell whether a weight has these strides, those of sizes of 1 included for images.

    Convolutions look at strides of sizes of 1 too, to tell if something is channels last.
    """
    if tuple(have) == tuple(want):
        return True
    return len(want) not in IMAGES and (0 in shape or strides_match(shape, have, want))


def layout_fits(
    shape: Sequence[int], have: Sequence[int], want: Sequence[int], layout: str
) -> bool:
    """Tell whether a contract takes these strides in the place of the compiled ones."""
    if layout == "copied" or tuple(have) == tuple(want):
        return True
    return layout == "fixed" and (0 in shape or strides_match(shape, have, want))


def has_layout(tensor: Any, dim_order: Sequence[int], layout: str) -> bool:
    """Tell whether a tensor or an array lies in memory as a contract asks that fixes its layout."""
    strides = dense_strides(tensor.shape, dim_order)
    return layout_fits(tensor.shape, tensor.stride(), strides, layout)
