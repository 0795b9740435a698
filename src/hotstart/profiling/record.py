"""The record of where the time of a call went: plain data, which can be kept and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hotstart.profiling.limits import Rates
from hotstart.profiling.parts import PieceProfile
from hotstart.profiling.peaks import Peaks
from hotstart.profiling.rows import KernelRow, PieceRow, piece_rows, slowest_first
from hotstart.records.table import columns

VERSION = 1
"""Of the JSON document."""

MAX_KERNELS = 20
"""Lines of kernels in a rendering, those that take longest."""

_NAME = 44
"""Letters of a kernel's name in a rendering; Inductor names kernels after all that is in them."""


class Profile(msgspec.Struct, frozen=True):
    """Times of a call, by piece and kernel.

    Attributes:
        call: the name of the call; empty where a program takes calls of one kind only.
        variant: the variant that served it.
        native: whether native code serves it.
        seconds: one call, as it is served; the median of several.
        seconds_in_parts: the same in Python, with everything timed that it calls; the average of
            the middle half of the calls, as of the parts, which add up to it.
        pieces: those that it ran, in the order of the code, then what is between them.
        peaks: what this machine can do at most.
        threads: those that torch had.
        repeats: how many calls were timed.
        load: processes that wanted to run on this machine besides, on average over a minute.
        version: of this document.
    """

    call: str
    variant: str
    native: bool
    seconds: float
    seconds_in_parts: float
    pieces: tuple[PieceProfile, ...]
    peaks: Peaks
    threads: int
    repeats: int
    load: float
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, as JSON has it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def rows(self) -> list[PieceRow]:
        """Gather pieces that run the same unit, and their kernels."""
        return piece_rows(self.pieces, self.seconds_in_parts, self.peaks)

    def __str__(self) -> str:
        served = "in native code" if self.native else "in Python"
        call = f"{self.call}: {self.variant}" if self.call else self.variant
        rows = self.rows()
        lines = [
            f"{call}: {_time(self.seconds)} {served}, {self.threads} "
            f"thread{'' if self.threads == 1 else 's'}, median of {self.repeats}",
            f"with every part timed: {_time(self.seconds_in_parts)}; shares are of that",
            f"this machine: {self.peaks.operations_per_s / 1e9:.0f} GFLOP/s in "
            f"{self.peaks.dtype}, {self.peaks.bytes_per_s / 1e9:.0f} GB/s",
            "",
            *_piece_lines(rows),
            "",
            *_kernel_lines(slowest_first(rows)),
        ]
        return "\n".join(lines)


def _piece_lines(rows: Sequence[PieceRow]) -> list[str]:
    """A line for pieces that run the same unit, then for what is between pieces."""
    cells = [("pieces", "", "time", "share", "GFLOP/s", "GB/s", "of the limit")]
    for row in rows:
        where = _layers(row) + (", op by op" if row.op_by_op else "")
        cells.append((_named(row), where, *_numbers(row.rates)))
    return columns(cells, "<<>>>>>")


def _kernel_lines(rows: Sequence[KernelRow]) -> list[str]:
    """A line for each kernel of equal pieces together, those that take longest."""
    cells = [
        ("kernels", "gives", "in", "calls", "time", "share", "GFLOP/s", "GB/s", "of the limit")
    ]
    for row in rows[:MAX_KERNELS]:
        within, count = row.within or "between", str(row.count)
        cells.append((_short(row.name), row.result, within, count, *_numbers(row.rates)))
    lines = columns(cells, "<<<>>>>>>")
    if (more := len(rows) - MAX_KERNELS) > 0:
        lines.append(f"... and {more} more")
    return lines


def _numbers(rates: Rates) -> tuple[str, str, str, str, str]:
    return (
        _time(rates.seconds),
        f"{100 * rates.share:.1f} %",
        "" if rates.operations_per_s is None else f"{rates.operations_per_s / 1e9:.0f}",
        f"{rates.bytes_per_s / 1e9:.1f}",
        rates.limit_text,
    )


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.1f} us"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."


def _named(row: PieceRow) -> str:
    first, last = row.pieces[0].name or "between", row.pieces[-1].name
    return first if len(row.pieces) == 1 else f"{first} .. {last} ({len(row.pieces)})"


def _layers(row: PieceRow) -> str:
    found = [layer for piece in row.pieces for layer in piece.layers]
    return ", ".join(found[:1]) + (f" and {len(found) - 1} more" if len(found) > 1 else "")
