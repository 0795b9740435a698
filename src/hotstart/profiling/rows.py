"""Gather the parts of a call as they are shown: what runs the same unit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hotstart.profiling.limits import Rates, rates_of
from hotstart.profiling.parts import KernelProfile, PieceProfile
from hotstart.profiling.peaks import Peaks


@dataclass(frozen=True)
class KernelRow:
    """A kernel at one place of the code, of all pieces that run this code.

    Attributes:
        name: as generated code calls it.
        kind: `"kernel"` or `"operator"`.
        within: the first piece; empty for what is between pieces.
        count: how often a call of the program runs it.
        result: sizes of what an operator returns.
        rates: of all of these together.
    """

    name: str
    kind: str
    within: str
    count: int
    result: str
    rates: Rates


@dataclass(frozen=True)
class PieceRow:
    """Pieces that run the same unit; or what is between pieces, as one without a name.

    Attributes:
        pieces: they, in order.
        rates: of all of them together.
        kernels: what they call, in the order of the code.
    """

    pieces: tuple[PieceProfile, ...]
    rates: Rates
    kernels: tuple[KernelRow, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the pieces; none for what is between pieces."""
        return tuple(piece.name for piece in self.pieces if piece.name)

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the submodules that they came from."""
        return tuple(dict.fromkeys(path for piece in self.pieces for path in piece.layers))

    @property
    def kernel_calls(self) -> int:
        """The number of kernels they call: each place counts once for each piece."""
        return sum(len(piece.kernels) for piece in self.pieces)

    @property
    def op_by_op(self) -> str:
        """Why they run the captured operators; empty if they do not."""
        return self.pieces[0].op_by_op


def piece_rows(pieces: Iterable[PieceProfile], whole_s: float, peaks: Peaks) -> list[PieceRow]:
    """Gather pieces that run the same unit, in the order of the first of each.

    Args:
        pieces: they.
        whole_s: how long the call took that they are of, in seconds.
        peaks: what the machine can do.
    """
    alike: dict[str, list[PieceProfile]] = {}
    for piece in pieces:
        alike.setdefault(piece.unit, []).append(piece)
    return [_piece_row(same, whole_s, peaks) for same in alike.values()]


def slowest_first(rows: Iterable[PieceRow]) -> list[KernelRow]:
    """The kernels of all rows, those that take longest first."""
    kernels = [kernel for row in rows for kernel in row.kernels]
    return sorted(kernels, key=lambda kernel: -kernel.rates.seconds)


def _piece_row(pieces: Sequence[PieceProfile], whole_s: float, peaks: Peaks) -> PieceRow:
    seconds = sum(piece.seconds for piece in pieces)
    kernels = [kernel for piece in pieces for kernel in piece.kernels]
    alike: dict[tuple[int, str], list[KernelProfile]] = {}
    for piece in pieces:
        for place, kernel in enumerate(piece.kernels):
            alike.setdefault((place, kernel.name), []).append(kernel)
    return PieceRow(
        tuple(pieces),
        rates_of(seconds, whole_s, kernels, peaks),
        tuple(_kernel_row(same, pieces[0].name, whole_s, peaks) for same in alike.values()),
    )


def _kernel_row(
    kernels: Sequence[KernelProfile], within: str, whole_s: float, peaks: Peaks
) -> KernelRow:
    seconds = sum(kernel.seconds for kernel in kernels)
    count = sum(kernel.count for kernel in kernels)
    rates = rates_of(seconds, whole_s, kernels, peaks)
    first = kernels[0]
    return KernelRow(first.name, first.kind, within, count, first.result, rates)
