"""Forms of a program whose parts are watched: the same code, in Python, with calls rewritten."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from hotstart.profiling.watched_code import WATCH, Point, kinds_among, watched_code
from hotstart.records.artifact import Artifact, CompiledUnit, Stitched
from hotstart.runtime.code.unit_functions import Form, Forms, Unit, python_unit


class Watch(Protocol):
    """Hooks that rewritten code calls in place of a kernel, an operator or a piece.

    A piece goes by its name in `Artifact.pieces`.
    """

    def add(self, point: Point) -> int:
        """Keep a place; its number."""
        ...

    def call(self, number: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what is called at a place."""
        ...


class WatchedPieces(Forms):
    """Finds for the variants of an artifact a form whose pieces are watched.

    Args:
        artifact: the artifact.
        watch: is called in place of a piece, and of operators between pieces.
    """

    def __init__(self, artifact: Artifact, watch: Watch) -> None:
        super().__init__(replace(artifact, native=None))
        self._watch = watch
        self._scope: Mapping[str, Any] = {WATCH: watch.call}
        self._made: dict[str, Unit] = {}
        self._compiled = {unit.key: unit for unit in artifact.units}
        self._names = {piece.name.replace(".", "_"): piece.name for piece in artifact.pieces}
        self._variants: list[tuple[int, set[int], Mapping[str, str]]] = []

    def of(self, number: int, stitched: Stitched) -> Form:
        """The watched form of a variant."""
        pieces = {self._names[name]: key for name, key in pieces_in(stitched).items()}
        points: set[int] = set()

        def add(point: Point) -> int:
            if point.kind == "piece":
                point = Point(self._names[point.name], point.kind)
            points.add(added := self._watch.add(point))
            return added

        code = watched_code(stitched.code, "run", kinds_among((), self._names), add)
        self._variants.append((number, points, pieces))
        return Form(code, self._scope, [self._unit_once(key) for key in stitched.units])

    def variant_of(self, points: Iterable[int]) -> int:
        """The number of the variant that one of these places is in; the first if none is."""
        wanted = set(points)
        return next((number for number, own, _ in self._variants if own & wanted), 0)

    def unit_of(self, piece: str, point: int) -> str:
        """The key of the unit that a piece runs, given the place where it is called."""
        return next(pieces[piece] for _, own, pieces in self._variants if point in own)

    def _unit_once(self, key: str) -> Unit:
        if key not in self._made:
            self._made[key] = self._unit_of(self._compiled[key])
        return self._made[key]

    def _unit_of(self, unit: CompiledUnit) -> Unit:
        return python_unit(unit)


class WatchedParts(WatchedPieces):
    """The same, with the kernels and operators of pieces watched, too."""

    def _unit_of(self, unit: CompiledUnit) -> Unit:
        kinds = kinds_among([name for name, _ in unit.kernels], ())
        code = watched_code(unit.code, "call", kinds, self._watch.add)
        return python_unit(replace(unit, code=code), self._scope)


def pieces_in(stitched: Stitched) -> dict[str, str]:
    """The pieces that stitched code calls, by the names it has for them, each with its unit's key.

    Its `bind` makes each by one statement, `piece_3 = unit_1(weight, ...)`.
    """
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(stitched.source)):
        match node:
            case ast.Assign(
                targets=[ast.Name(id=piece)], value=ast.Call(func=ast.Name(id=unit))
            ) if unit.startswith("unit_"):
                found[piece] = stitched.units[int(unit.removeprefix("unit_"))]
    return found
