"""Parse the values of flags. Nothing here reads or writes anything."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from hotstart.errors import OptionsError
from hotstart.options import Jobs
from hotstart.records.shapes import Dim

_T = TypeVar("_T")

_DYNAMIC = re.compile(r"(\w+):(\d+)=(\w+)(?:\[(\d+)\.\.(\d+)\])?", re.ASCII)
_RANGE = re.compile(r"(\w+)=(\d+)\.\.(\d+)", re.ASCII)
_SIZE = re.compile(r"(\w+)=(\d+)", re.ASCII)
_FACTORY = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


class DynamicDim(msgspec.Struct, frozen=True):
    """One dynamic dimension of one argument.

    Attributes:
        argument: a parameter of the model's forward.
        dim: the number of the dimension.
        axis: the axis' name.
        bounds: smallest and largest size; None where another flag gives them.
    """

    argument: str
    dim: int
    axis: str
    bounds: tuple[int, int] | None


class Factory(msgspec.Struct, frozen=True):
    """A function, by its module and name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def dynamic_dim(text: str) -> DynamicDim:
    """Parse `input_ids:1=seq[1..512]`, or `input_ids:1=seq` once the axis has bounds."""
    argument, dim, axis, low, high = _match(_DYNAMIC, text, "ARGUMENT:DIM=AXIS[LOW..HIGH]")
    bounds = None if low is None else (int(low), int(high))
    return DynamicDim(argument, int(dim), axis, bounds)


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
) -> dict[str, dict[int, Dim]] | None:
    """Make the `dynamic_shapes` of `hotstart.compile`; None without dynamic dimensions.

    All dimensions of an axis share one `Dim`, whichever flags gave its bounds, ranges and sizes.

    Raises:
        OptionsError: the flags contradict each other, or describe no `Dim`.
    """
    bounds: dict[str, tuple[int, int] | None] = {}
    for dim in dims:
        known = bounds.setdefault(dim.axis, dim.bounds)
        if known is None:
            bounds[dim.axis] = dim.bounds
        elif dim.bounds not in (None, known):
            raise OptionsError(
                f"axis {dim.axis!r}: got bounds {_span(known)} and {_span(dim.bounds)}, takes one"
            )
    ranges_of: dict[str, list[tuple[int, int]]] = {axis: [] for axis in bounds}
    for axis, ends in ranges:
        _declared(axis, ranges_of, "--range").append(ends)
    sizes_of: dict[str, list[int]] = {axis: [] for axis in bounds}
    for axis, size in sizes:
        _declared(axis, sizes_of, "--size").append(size)

    for axis, span in bounds.items():
        if span is None and not ranges_of[axis] and not sizes_of[axis]:
            dim = next(each for each in dims if each.axis == axis)
            flag = f"{dim.argument}:{dim.dim}={axis}"
            raise OptionsError(
                f"--dynamic {flag}: got no bounds of axis {axis!r}, takes them at one --dynamic of "
                f"the axis; write '{flag}[1..512]', for sizes of 1 to 512"
            )
    axes = {
        axis: Dim(
            axis,
            min=span[0] if span else None,
            max=span[1] if span else None,
            ranges=ranges_of[axis] or None,
            sizes=sizes_of[axis],
        )
        for axis, span in bounds.items()
    }
    shapes: dict[str, dict[int, Dim]] = {}
    for dim in dims:
        of_argument = shapes.setdefault(dim.argument, {})
        if dim.dim in of_argument:
            raise OptionsError(f"--dynamic {dim.argument}:{dim.dim} was given twice")
        of_argument[dim.dim] = axes[dim.axis]
    return shapes or None


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
