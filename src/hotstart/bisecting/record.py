"""The record of where a program departs from its model: plain data, to be kept and shown."""

from __future__ import annotations

from typing import Any

import msgspec

from hotstart.records.table import columns

VERSION = 1
"""Of the JSON document."""


class PieceDifference(msgspec.Struct, frozen=True):
    """A piece of a program against the operators that it was compiled from.

    Attributes:
        name: of the piece, as in `Program.pieces`.
        layers: paths of the submodules it came from.
        error: the largest difference of its outputs on the inputs that it has in eager mode, as a
            share of the largest number expected; None where it was not run once more, since calls
            write to weights.
        error_so_far: the same in the call, with what the pieces before it gave.
        departs: whether that is more than is allowed: `error`, if it is known.
    """

    name: str
    layers: tuple[str, ...]
    error: float | None
    error_so_far: float
    departs: bool


class Bisection(msgspec.Struct, frozen=True):
    """Comparison of a program with its model, piece by piece.

    Attributes:
        captured_error: results of the captured operators against the model's, as a share of the
            largest number expected. If they depart, what was captured is not what the model does.
        captured_departs: whether they do.
        error: results of the program against the model's.
        departs: whether they depart.
        pieces: those that ran, in order.
        tolerance: what was allowed; None if that goes by dtype.
        version: of this document.
    """

    captured_error: float
    captured_departs: bool
    error: float
    departs: bool
    pieces: tuple[PieceDifference, ...]
    tolerance: float | None
    version: int = VERSION

    @property
    def first(self) -> str | None:
        """The name of the first piece that departs; None if none does."""
        return next((piece.name for piece in self.pieces if piece.departs), None)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, as JSON has it."""
        return {**msgspec.to_builtins(self), "first": self.first}

    def __str__(self) -> str:
        rows = [("piece", "layers", "error", "so far", "")]
        for piece in self.pieces:
            alone = "" if piece.error is None else f"{piece.error:.1e}"
            told = "departs" if piece.departs else ""
            layers = ", ".join(piece.layers)
            rows.append((piece.name, layers, alone, f"{piece.error_so_far:.1e}", told))
        return "\n".join([self._summary(), "", *columns(rows, "<<>><")])

    def _summary(self) -> str:
        whole = f"the program is {self.error:.1e} from the model"
        if self.captured_departs:
            return f"what was captured departs from the model ({self.captured_error:.1e}); {whole}"
        if self.first is not None:
            return f"{self.first} is the first piece to depart from eager mode; {whole}"
        return f"no piece departs from eager mode; {whole}"
