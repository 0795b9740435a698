"""Dynamic dimensions: the sizes that each is declared to have, alone or as others have them."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import msgspec

from hotstart.errors import OptionsError
from hotstart.records.shapes import Choice, Interval, Variant


class DerivedSize(msgspec.Struct, frozen=True):
    """A size that follows from axes: multiples of them, added up with a number.

    Attributes:
        terms: each axis, by name, and what it is multiplied by, 1 or more.
        plus: the number, which may be negative.
    """

    terms: tuple[tuple[str, int], ...]
    plus: int = 0

    def __str__(self) -> str:
        """Such as `8*rows`, `past + new` or `2*frames - 1`."""
        return self.written(lambda axis: axis)

    def written(self, name_of: Callable[[str], str]) -> str:
        """Write the sum as Python, given the name that each axis has there."""
        terms = ((name_of(axis), factor) for axis, factor in self.terms)
        text = " + ".join(name if factor == 1 else f"{factor}*{name}" for name, factor in terms)
        return f"{text} {'-' if self.plus < 0 else '+'} {abs(self.plus)}" if self.plus else text

    def at(self, sizes: Mapping[str, Any]) -> Any:
        """The size where each axis has the size that `sizes` gives it."""
        return sum((sizes[axis] * factor for axis, factor in self.terms), self.plus)

    def of(self, axes: Mapping[str, "Dim"]) -> "DerivedDim":
        """The same of dimensions, given that of each axis."""
        total = DerivedDim((), self.plus)
        for axis, factor in self.terms:
            total = total + factor * axes[axis]
        return total

    def solved(self, size: int) -> int:
        """The largest size of the only axis for which this is not above `size`."""
        ((_, factor),) = self.terms
        return (size - self.plus) // factor

    def solving(self, size: str) -> str:
        """Write as Python what computes the same, given what reads the size."""
        ((_, factor),) = self.terms
        rest = f"({size} {'+' if self.plus < 0 else '-'} {abs(self.plus)})" if self.plus else size
        return rest if factor == 1 else f"{rest} // {factor}"


Size: TypeAlias = int | str | DerivedSize
"""A size as contracts have it: a number, the name of an axis, or what follows from axes."""


def as_derived(size: Size) -> DerivedSize:
    """The same size as a sum, whatever it is."""
    if isinstance(size, str):
        return DerivedSize(((size, 1),))
    return DerivedSize((), size) if isinstance(size, int) else size


def size_at(size: Size, sizes: Mapping[str, Any]) -> Any:
    """The number that a size is where each axis has the size that `sizes` gives it."""
    return sizes[size] if isinstance(size, str) else as_derived(size).at(sizes)


def axes_of(size: Size) -> tuple[str, ...]:
    """The names of the axes that a size follows from; none for a number."""
    return tuple(axis for axis, _ in as_derived(size).terms)


class _Arithmetic:
    """Multiples of dimensions, and sums of them with others and with numbers."""

    def __mul__(self, factor: int) -> "DerivedDim":
        if not _is_int(factor):
            return NotImplemented
        own = _sum_of(self)
        if factor < 1:
            raise OptionsError(f"{factor} * {own}: got factor {factor}, takes 1 or more")
        return DerivedDim(tuple((dim, factor * n) for dim, n in own.terms), factor * own.plus)

    def __add__(self, other: "Dim | DerivedDim | int") -> "DerivedDim":
        own = _sum_of(self)
        if _is_int(other):
            return DerivedDim(own.terms, own.plus + other)
        if not isinstance(other, _Arithmetic):
            return NotImplemented
        terms, more = dict(own.terms), _sum_of(other)
        for dim, factor in more.terms:
            terms[dim] = terms.get(dim, 0) + factor
        return DerivedDim(tuple(terms.items()), own.plus + more.plus)

    def __sub__(self, number: int) -> "DerivedDim":
        return self + -number if _is_int(number) else NotImplemented

    __rmul__ = __mul__
    __radd__ = __add__


@dataclass(frozen=True)
class DerivedDim(_Arithmetic):
    """A dynamic dimension whose size follows from others: see `Dim`.

    Attributes:
        terms: each of the others, and what it is multiplied by.
        plus: the number that is added.
    """

    terms: tuple[tuple["Dim", int], ...]
    plus: int = 0

    @property
    def min(self) -> int:
        """The smallest size; below 0, it cannot be that of a tensor."""
        return sum(factor * dim.min for dim, factor in self.terms) + self.plus

    @property
    def is_sum(self) -> bool:
        """Tell whether it follows from several others."""
        return len(self.terms) > 1

    @property
    def is_plain(self) -> bool:
        """Tell whether it is another one as that is."""
        return self.derived == DerivedSize(((self.terms[0][0].name, 1),))

    @property
    def simplest(self) -> "Dim | DerivedDim":
        """The same; the other one itself where it is that."""
        return self.terms[0][0] if self.is_plain else self

    @property
    def served(self) -> str:
        """The sizes that are served: `1..512`, or `8*rows for rows of 1..64`."""
        if self.is_plain:
            return str(self.terms[0][0])
        return f"{self} for {' and '.join(f'{dim.name} of {dim}' for dim, _ in self.terms)}"

    def serves(self, size: int) -> bool:
        """Tell whether some sizes of the others make `size`, if it follows from one; else True."""
        if self.is_sum:
            return True
        ((dim, _),) = self.terms
        solved = self.derived.solved(size)
        return dim.serves(solved) and self.derived.at({dim.name: solved}) == size

    @property
    def derived(self) -> DerivedSize:
        """Its size, by names."""
        return DerivedSize(tuple((dim.name, factor) for dim, factor in self.terms), self.plus)

    @property
    def size(self) -> Size:
        """Its size as a contract has it."""
        return self.terms[0][0].name if self.is_plain else self.derived

    def __str__(self) -> str:
        return str(self.derived)


@dataclass(frozen=True, init=False)
class Dim(_Arithmetic):
    """A named dynamic dimension. Every input dimension given the same name has the same size.

    Dimensions whose sizes follow from it are computed of it: `8 * rows` takes sizes that are
    multiples of 8, `frames + 1` one more than another dimension has, and `past + new` the sum of
    two. `min`, `max` and the like are sizes of the dimension itself: `8 * Dim("rows", max=4)` takes
    8, 16, 24 and 32. Each that is used in such a way needs a dimension which follows from it alone.

    Args:
        name: the axis' name.
        min: smallest size served. Default: the smallest in `ranges` and `sizes`, else 1.
        max: largest size served. Default: the largest in `ranges` and `sizes`; needed without them.
        ranges: inclusive `(low, high)` pairs, each compiled on its own with its bounds known to
            the compiler. Whatever of `min..max` they leave out is served by ranges of its own.
            Default: one range, `min..max`. An empty list: only `sizes` are served.
        sizes: single sizes compiled statically, which take precedence over ranges. A range of one
            size is one of these.

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
        kept = [*_without(served, exact)]
        single = {r.lo for r in kept if r.lo == r.hi}
        object.__setattr__(self, "ranges", tuple(r for r in kept if r.lo < r.hi))
        object.__setattr__(self, "sizes", tuple(sorted({*exact, *single})))

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


def _sum_of(dim: _Arithmetic) -> DerivedDim:
    """The same dimension in terms of others, or of itself."""
    if isinstance(dim, DerivedDim):
        return dim
    assert isinstance(dim, Dim)  # the only other class of this arithmetic
    return DerivedDim(((dim, 1),))


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _size(name: str, size: object) -> int:
    if not _is_int(size) or size < 0:
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


def variants(dims: Sequence[Dim]) -> tuple[Variant, ...]:
    """Every combination of choices, those with the most ranges first."""
    combinations = itertools.product(*([(dim.name, c) for c in dim.choices] for dim in dims))
    made = [Variant(choices) for choices in combinations]
    return tuple(sorted(made, key=lambda v: sum(isinstance(c, int) for _, c in v.choices)))
