"""Parse the values of flags. Nothing here reads or writes anything."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from hotstart.errors import OptionsError
from hotstart.options import Jobs
from hotstart.records.dims import DerivedDim, DerivedSize, Dim, axes_of

_T = TypeVar("_T")

_TERM = r"(?:[1-9]\d*\*)?[^\W\d]\w*"
_DYNAMIC = re.compile(
    rf"(\w+):(\d+)=({_TERM}(?:\+{_TERM})*)([+-]\d+)?(?:\[(\d+)\.\.(\d+)\])?", re.ASCII
)
_RANGE = re.compile(r"(\w+)=(\d+)\.\.(\d+)", re.ASCII)
_SIZE = re.compile(r"(\w+)=(\d+)", re.ASCII)
_FACTORY = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


class DynamicDim(msgspec.Struct, frozen=True):
    """One dynamic dimension of one argument.

    Attributes:
        argument: a parameter of the model's forward.
        dim: the number of the dimension.
        size: what it follows from: an axis, a multiple of one, or a sum of such.
        bounds: smallest and largest size of the only axis; None where another flag gives them.
    """

    argument: str
    dim: int
    size: DerivedSize
    bounds: tuple[int, int] | None


class Factory(msgspec.Struct, frozen=True):
    """A function, by its module and name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def dynamic_dim(text: str) -> DynamicDim:
    """Parse `input_ids:1=seq[1..512]`, or `input_ids:1=seq` once the axis has bounds.

    In the place of the axis may be what follows from axes: `8*rows[1..64]`, `past+new`, `seq-1`.
    """
    form = "ARGUMENT:DIM=AXIS[LOW..HIGH]"
    argument, dim, axes, plus, low, high = _match(_DYNAMIC, text, form)
    parts = (part.rpartition("*") for part in axes.split("+"))
    size = DerivedSize(tuple((axis, int(n or 1)) for n, _, axis in parts), int(plus or 0))
    if low is None:
        return DynamicDim(argument, int(dim), size, None)
    if len(size.terms) > 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, takes bounds where there is one axis")
    return DynamicDim(argument, int(dim), size, (int(low), int(high)))


def axis_range(text: str) -> tuple[str, tuple[int, int]]:
    """Parse `seq=1..64` into an axis and a range that gets its own variant, ends included."""
    axis, low, high = _match(_RANGE, text, "AXIS=LOW..HIGH")
    return axis, (int(low), int(high))


def axis_size(text: str) -> tuple[str, int]:
    """Parse `seq=1` into an axis and a size that is compiled statically."""
    axis, size = _match(_SIZE, text, "AXIS=SIZE")
    return axis, int(size)


def factory(text: str) -> Factory:
    """Parse `package.module:function`."""
    return Factory(*_match(_FACTORY, text, "PACKAGE.MODULE:FUNCTION"))


def count(text: str, least: int = 0) -> int:
    """Parse a whole number of at least `least`."""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"got {text!r}, takes a whole number of {least} or more")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    return count(text, least=1)


def jobs(text: str) -> Jobs:
    """Parse a whole number of 1 or more, or `ray`."""
    if text == "ray":
        return "ray"
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or 'ray'") from None


def dynamic_shapes(
    dims: Sequence[DynamicDim],
    ranges: Iterable[tuple[str, tuple[int, int]]] = (),
    sizes: Iterable[tuple[str, int]] = (),
) -> dict[str, dict[int, Dim | DerivedDim]] | None:
    """Make the `dynamic_shapes` of `hotstart.compile`; None without dynamic dimensions.

    All dimensions of an axis share one `Dim`, whichever flags gave its bounds, ranges and sizes.

    Raises:
        OptionsError: the flags contradict each other, or describe no `Dim`.
    """
    axes = _axes(dims, ranges, sizes)
    shapes: dict[str, dict[int, Dim | DerivedDim]] = {}
    for dim in dims:
        of_argument = shapes.setdefault(dim.argument, {})
        if dim.dim in of_argument:
            raise OptionsError(f"--dynamic {dim.argument}:{dim.dim} was given twice")
        of_argument[dim.dim] = dim.size.of(axes).simplest
    return shapes or None


def _axes(
    dims: Sequence[DynamicDim],
    ranges: Iterable[tuple[str, tuple[int, int]]],
    sizes: Iterable[tuple[str, int]],
) -> dict[str, Dim]:
    """Make a `Dim` for every axis that flags name."""
    bounds: dict[str, tuple[int, int] | None] = {}
    for axis, span in ((axis, dim.bounds) for dim in dims for axis in axes_of(dim.size)):
        known = bounds.setdefault(axis, span)
        if known is None:
            bounds[axis] = span
        elif span not in (None, known):
            raise OptionsError(
                f"axis {axis!r}: got bounds {_span(known)} and {_span(span)}, takes one"
            )
    ranges_of: dict[str, list[tuple[int, int]]] = {axis: [] for axis in bounds}
    for axis, ends in ranges:
        _declared(axis, ranges_of, "--range").append(ends)
    sizes_of: dict[str, list[int]] = {axis: [] for axis in bounds}
    for axis, size in sizes:
        _declared(axis, sizes_of, "--size").append(size)

    for axis, span in bounds.items():
        if span is None and not ranges_of[axis] and not sizes_of[axis]:
            dim = next(each for each in dims if axis in axes_of(each.size))
            flag = f"{dim.argument}:{dim.dim}={dim.size}".replace(" ", "")
            several = len(axes_of(dim.size)) > 1
            write = f"; write '{flag}[1..512]', for {axis!r} of 1 to 512"
            raise OptionsError(
                f"--dynamic {flag}: got no bounds of axis {axis!r}, takes them at one --dynamic of "
                f"the axis{' alone' if several else write}"
            )
    return {
        axis: Dim(
            axis,
            min=span[0] if span else None,
            max=span[1] if span else None,
            ranges=ranges_of[axis] or None,
            sizes=sizes_of[axis],
        )
        for axis, span in bounds.items()
    }


def split_rule(ops: Sequence[str]) -> Literal["auto"] | tuple[str, ...]:
    """Make the `split_on` of `hotstart.compile`: `"auto"`, or the operators to cut at."""
    return "auto" if not ops or set(ops) == {"auto"} else tuple(dict.fromkeys(ops))


def _match(pattern: re.Pattern[str], text: str, form: str) -> tuple[Any, ...]:
    found = pattern.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, takes {form}")
    return found.groups()


def _declared(axis: str, of_axes: dict[str, list[_T]], flag: str) -> list[_T]:
    if axis not in of_axes:
        known = ", ".join(of_axes) or "none"
        raise OptionsError(f"{flag} {axis}=...: no --dynamic names this axis; they name: {known}")
    return of_axes[axis]


def _span(bounds: tuple[int, int] | None) -> str:
    return f"[{bounds[0]}..{bounds[1]}]" if bounds else "none"
