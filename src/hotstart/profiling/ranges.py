"""Show the pieces of a program in traces of `torch.profiler`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.profiler import record_function

from hotstart.faults import require
from hotstart.profiling.watched import WatchedPieces
from hotstart.profiling.watched_code import Point
from hotstart.program import Program
from hotstart.records.report import PieceInfo


class _Ranges:
    """Runs each piece in a range that is named after it and its layers."""

    def __init__(self, pieces: Sequence[PieceInfo]) -> None:
        self._layers = {piece.name: piece.layers for piece in pieces}
        self._names: list[str] = []

    def add(self, point: Point) -> int:
        """Keep a place; its number."""
        layers = self._layers[point.name] if point.kind == "piece" else ()
        self._names.append(" ".join([point.name, ", ".join(layers)]).strip())
        return len(self._names) - 1

    def call(self, number: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what is called at a place, in a range."""
        with record_function(self._names[number]):
            return function(*args, **kwargs)


def profiler_ranges(program: Program) -> Program:
    """The same program on the same weights, each piece in a range of `torch.profiler`.

    It runs in its Python form, so a call takes longer than one of the program itself, which has no
    ranges and pays nothing for them. Calls outside the contract are errors.

        with torch.profiler.profile() as trace:
            hotstart.profiler_ranges(program)(x)
        trace.export_chrome_trace("call.json")

    Args:
        program: made by `hotstart.compile`, or by `hotstart.load` where torch was imported.

    Raises:
        OptionsError: this is no such program.
    """
    require("program", program, Program, "a hotstart.Program; import torch before it is loaded")
    return program.in_forms(WatchedPieces(program.artifact, _Ranges(program.pieces)))
