"""Times what generated code calls, by the place where it calls it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hotstart.profiling.operations import bytes_of, operations_of, sizes_of
from hotstart.profiling.watched_code import Point


@dataclass
class Spent:
    """Time of the calls at one place while one piece ran, in one call of a program.

    Attributes:
        nanoseconds: of all together.
        count: how many there were.
        bytes: read and written, as far as arguments tell.
        operations: multiplications and additions, where they are known.
        result: sizes of the first tensor that an operator returned, such as `4 x 384`.
    """

    nanoseconds: int = 0
    count: int = 0
    bytes: int = 0
    operations: int | None = None
    result: str = ""


@dataclass
class Recorder:
    """Keeps what calls of a program took, one call after the other; for one thread.

    Attributes:
        points: the places, by number.
        spent: by piece and place, what the call at hand took so far; the piece is None for what
            stitched code calls besides pieces.
        counts: whether bytes and operations are counted, which takes time.
    """

    points: list[Point] = field(default_factory=list)
    spent: dict[tuple[int | None, int], Spent] = field(default_factory=dict)
    counts: bool = False
    _piece: int | None = None

    def add(self, point: Point) -> int:
        """Keep a place; its number."""
        self.points.append(point)
        return len(self.points) - 1

    def begin(self, *, counts: bool) -> None:
        """Begin with another call."""
        self.spent, self.counts, self._piece = {}, counts, None

    def call(self, number: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, and note how long it took."""
        within, point = self._piece, self.points[number]
        if point.kind == "piece":
            self._piece = number
        started = time.perf_counter_ns()
        result = function(*args, **kwargs)
        nanoseconds = time.perf_counter_ns() - started
        self._piece = within
        spent = self.spent.setdefault((within, number), Spent())
        spent.nanoseconds += nanoseconds
        spent.count += 1
        if self.counts and point.kind != "piece":
            spent.result = spent.result or sizes_of(point.name, args, result)
            spent.bytes += bytes_of(*args, *kwargs.values(), result)
            operations = operations_of(point.name, args, kwargs, result)
            if operations is not None:
                spent.operations = (spent.operations or 0) + operations
        return result
