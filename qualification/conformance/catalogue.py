"""Every architecture of the conformance suite, and the sizes each is tried at."""

from __future__ import annotations

import importlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hotstart import Dim
from hotstart.records.dims import DerivedDim
from qualification.conformance.zoo.entry import Entry

SAMPLED = 6
"""Combinations of sizes that are tried besides corners and ends of ranges."""


def modules() -> list[str]:
    """The modules that hold entries, by their names in `qualification.conformance.zoo`."""
    return sorted(file.stem for file in Path(__file__).parent.glob("zoo/*.py"))


def entries_of(module: str) -> tuple[Entry, ...]:
    """The entries that a module holds; none if it only helps others."""
    imported = importlib.import_module(f"qualification.conformance.zoo.{module}")
    entries: tuple[Entry, ...] = getattr(imported, "ENTRIES", ())
    return entries


def entry(module: str, name: str) -> Entry:
    """The entry of a name."""
    return next(entry for entry in entries_of(module) if entry.name == name)


def axes(dynamic_shapes: Any) -> dict[str, Dim]:
    """Every axis that is declared somewhere in `dynamic_shapes`, or that a size follows from."""
    return {dim.name: dim for dim in _dims(dynamic_shapes)}


def _dims(declared: Any) -> Iterator[Dim]:
    if isinstance(declared, Dim):
        yield declared
    elif isinstance(declared, DerivedDim):
        yield from (dim for dim, _ in declared.terms)
    elif isinstance(declared, Mapping):
        yield from itertools.chain.from_iterable(map(_dims, declared.values()))
    elif isinstance(declared, Sequence):
        yield from itertools.chain.from_iterable(map(_dims, declared))


def ends(dim: Dim) -> list[int]:
    """The sizes at which something may change: both ends of every range, single sizes, and 1."""
    ranged = (end for interval in dim.ranges for end in (interval.lo, interval.hi))
    return sorted({*ranged, *dim.sizes, *([1] if dim.serves(1) else [])})


def sizes_to_try(entry: Entry) -> list[dict[str, int]]:
    """All corners; every end of a range with the other axes as in the example; and a sample."""
    dims = axes(entry.dynamic_shapes)
    example = dict(entry.example)
    corners = itertools.product(*((ends(dim)[0], ends(dim)[-1]) for dim in dims.values()))
    tried = [example]
    tried += [{**example, **dict(zip(dims, corner, strict=True))} for corner in corners]
    tried += [{**example, axis: end} for axis, dim in dims.items() for end in ends(dim)]
    drawn = random.Random(0)
    for _ in range(SAMPLED if dims else 0):
        sample = {axis: drawn.choice(_served(dim)) for axis, dim in dims.items()}
        tried.append({**example, **sample})
    return [dict(sizes) for sizes in dict.fromkeys(tuple(sizes.items()) for sizes in tried)]


def _served(dim: Dim) -> list[int]:
    return [size for size in range(dim.min, dim.max + 1) if dim.serves(size)]
