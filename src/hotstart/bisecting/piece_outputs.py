"""Keep what pieces were given and returned, and compare other pieces with that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hotstart.compilers.proof.tolerance import relative_error
from hotstart.errors import OptionsError
from hotstart.profiling.watched_code import Point

_TOLERANCES = {
    torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2,
}  # fmt: skip
"""Error that rounding explains, by dtype, as a share of the largest number expected."""


@dataclass(frozen=True)
class Distance:
    """Error of some tensors against others.

    Attributes:
        error: the largest difference, as a share of the largest number expected of a tensor.
        departs: whether that is more than is allowed.
    """

    error: float
    departs: bool


def distance(found: Iterable[Any], expected: Iterable[Any], tolerance: float | None) -> Distance:
    """Compare the tensors among some values, one by one.

    Args:
        found: the values.
        expected: what they should be.
        tolerance: what is allowed; None: by dtype.
    """
    worst, departs = 0.0, False
    for one, other in zip(_tensors(found), _tensors(expected), strict=True):
        error = relative_error(one, other)
        allowed = _TOLERANCES.get(_real(other.dtype), 0.0) if tolerance is None else tolerance
        worst, departs = max(worst, error), departs or error > allowed
    return Distance(worst, departs)


@dataclass(frozen=True)
class Run:
    """Copies of the inputs and outputs of a piece in one call.

    Attributes:
        inputs: sizes and tensors, as they were before.
        outputs: what it returned.
    """

    inputs: list[Any]
    outputs: list[Any]


class _Pieces:
    """Numbers the places that code calls."""

    def __init__(self) -> None:
        self._points: list[Point] = []

    def add(self, point: Point) -> int:
        """Keep a place; its number."""
        self._points.append(point)
        return len(self._points) - 1

    def _piece(self, number: int) -> str | None:
        """The piece that is called at a place; None if something else is."""
        point = self._points[number]
        return point.name if point.kind == "piece" else None


class Keeper(_Pieces):
    """Keeps what each piece is given and returns.

    Attributes:
        runs: by piece, in the order in which they ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, Run] = {}

    def call(self, number: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what is called at a place, and keep it if it is a piece."""
        name = self._piece(number)
        if name is None:
            return function(*args, **kwargs)
        inputs = copied(args[0])
        outputs = function(*args)
        self.runs[name] = Run(inputs, copied(outputs))
        return outputs


@dataclass(frozen=True)
class Difference:
    """Distance of a piece's results from the expected ones.

    Attributes:
        alone: on the inputs that the piece it is compared with had; None if that was not tried.
        together: in the call as a whole, with what the pieces before it gave.
    """

    alone: Distance | None
    together: Distance


class Comparer(_Pieces):
    """Compares what each piece returns with what another one has returned.

    Args:
        expected: by piece, what the other ones were given and returned.
        alone: whether each is run once more, on the inputs of the other one.
        tolerance: what is allowed; None: by dtype.

    Attributes:
        found: by piece, how far each was away, in the order in which they ran.
    """

    def __init__(
        self, expected: Mapping[str, Run], *, alone: bool, tolerance: float | None
    ) -> None:
        super().__init__()
        self._expected = expected
        self._alone = alone
        self._tolerance = tolerance
        self.found: dict[str, Difference] = {}

    def call(self, number: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what is called at a place, and compare it if it is a piece.

        Raises:
            OptionsError: it takes other inputs than the one that it is compared with.
        """
        name = self._piece(number)
        if name is None or name not in self._expected:
            return function(*args, **kwargs)
        expected = self._expected[name]
        _require_same_inputs(name, args[0], expected.inputs)
        outputs = function(*args)
        together = distance(outputs, expected.outputs, self._tolerance)
        alone = None
        if self._alone:
            again = function(copied(expected.inputs))
            alone = distance(again, expected.outputs, self._tolerance)
        self.found[name] = Difference(alone, together)
        return outputs


def _require_same_inputs(name: str, given: Sequence[Any], expected: Sequence[Any]) -> None:
    """Raise if a piece takes other tensors or sizes than what was captured now."""
    mine, theirs = ([isinstance(value, Tensor) for value in each] for each in (given, expected))
    if mine != theirs:
        raise OptionsError(
            f"program: got one whose {name} takes {_counted(mine)}, takes one whose {name} takes "
            f"{_counted(theirs)}\ndo: declare the dynamic_shapes that it was built with"
        )


def _counted(tensors: Sequence[bool]) -> str:
    return f"{sum(tensors)} tensors and {len(tensors) - sum(tensors)} sizes"


def copied(values: Sequence[Any]) -> list[Any]:
    """Copy the tensors among some values, with their strides."""
    return [value.clone() if isinstance(value, Tensor) else value for value in values]


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype
