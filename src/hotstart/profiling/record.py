"""The record of where the time of a call went: plain data, which can be kept and shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from hotstart.profiling.peaks import Peaks
from hotstart.profiling.watched_code import Kind
from hotstart.records.table import columns

VERSION = 1
"""Of the JSON document."""

MAX_KERNELS = 20
"""Lines of kernels in a rendering, those that take longest."""

_NAME = 60
"""Letters of a kernel's name in a rendering; Inductor names kernels after all that is in them."""


class KernelProfile(msgspec.Struct, frozen=True):
    """A kernel or an operator of torch, at one place of the code.

    Attributes:
        name: as generated code calls it.
        kind: `"kernel"` or `"operator"`.
        count: how often a call of the program runs it.
        seconds: of all of these together; the median of several calls.
        bytes: the size of all that it is given and returns: what it reads and writes, if that is
            all of it, once.
        operations: multiplications and additions; None where they are not known, as of kernels that
            Inductor has written.
    """

    name: str
    kind: Kind
    count: int
    seconds: float
    bytes: int
    operations: int | None


class PieceProfile(msgspec.Struct, frozen=True):
    """A piece, or what is called between pieces.

    Attributes:
        name: of the piece, as in `Program.pieces`; empty for what is between them.
        layers: paths of the submodules it came from.
        unit: the key of the unit that it runs; equal pieces have the same.
        op_by_op: why it runs the captured operators; empty if it does not.
        seconds: the median of several calls, with what its kernels take.
        kernels: what it calls, in the order of the code.
    """

    name: str
    layers: tuple[str, ...]
    unit: str
    op_by_op: str
    seconds: float
    kernels: tuple[KernelProfile, ...]


class Profile(msgspec.Struct, frozen=True):
    """Where the time of a call went.

    Attributes:
        call: the name of the call; empty where a program takes calls of one kind only.
        variant: the variant that served it.
        native: whether native code serves it.
        seconds: one call, as it is served; the median of several.
        seconds_in_parts: the same in Python, with everything timed that it calls.
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

    def __str__(self) -> str:
        served = "in native code" if self.native else "in Python"
        call = f"{self.call}: {self.variant}" if self.call else self.variant
        lines = [
            f"{call}: {_time(self.seconds)} {served}, {self.threads} threads, "
            f"median of {self.repeats}",
            f"with every part timed: {_time(self.seconds_in_parts)}; shares are of that",
            f"this machine: {self.peaks.operations_per_s / 1e9:.0f} GFLOP/s in "
            f"{self.peaks.dtype}, {self.peaks.bytes_per_s / 1e9:.0f} GB/s",
            "",
            *self._piece_lines(),
            "",
            *self._kernel_lines(),
        ]
        return "\n".join(lines)

    def _piece_lines(self) -> list[str]:
        """A line for pieces that run the same unit, then for what is between pieces."""
        alike: dict[str, list[PieceProfile]] = {}
        for piece in self.pieces:
            alike.setdefault(piece.unit, []).append(piece)
        rows = [("pieces", "", "time", "share", "GFLOP/s", "GB/s", "of the limit")]
        for pieces in alike.values():
            kernels = [kernel for piece in pieces for kernel in piece.kernels]
            seconds = sum(piece.seconds for piece in pieces)
            where = _layers(pieces)
            if pieces[0].op_by_op:
                where += ", op by op"
            rows.append((_named(pieces), where, *self._numbers(seconds, kernels)))
        return columns(rows, "<<>>>>>")

    def _kernel_lines(self) -> list[str]:
        """A line for each kernel of equal pieces together, those that take longest."""
        alike: dict[tuple[str, int, str], list[KernelProfile]] = {}
        first: dict[str, str] = {}
        for piece in self.pieces:
            first.setdefault(piece.unit, piece.name or "between")
            for place, kernel in enumerate(piece.kernels):
                alike.setdefault((piece.unit, place, kernel.name), []).append(kernel)
        ordered = sorted(alike.items(), key=lambda item: -sum(k.seconds for k in item[1]))
        rows = [("kernels", "in", "calls", "time", "share", "GFLOP/s", "GB/s", "of the limit")]
        for (unit, _, name), kernels in ordered[:MAX_KERNELS]:
            seconds = sum(kernel.seconds for kernel in kernels)
            count = sum(kernel.count for kernel in kernels)
            numbers = self._numbers(seconds, kernels)
            rows.append((_short(name), first[unit], str(count), *numbers))
        lines = columns(rows, "<<>>>>>>")
        if (more := len(ordered) - MAX_KERNELS) > 0:
            lines.append(f"... and {more} more")
        return lines

    def _numbers(
        self, seconds: float, kernels: Sequence[KernelProfile]
    ) -> tuple[str, str, str, str, str]:
        share = seconds / self.seconds_in_parts if self.seconds_in_parts else 0.0
        known = [kernel.operations for kernel in kernels if kernel.operations is not None]
        rate = sum(known) / seconds if seconds else 0.0
        memory = sum(kernel.bytes for kernel in kernels) / seconds if seconds else 0.0
        arithmetic = rate / self.peaks.operations_per_s
        of_memory = memory / self.peaks.bytes_per_s
        if arithmetic >= of_memory or (known and of_memory > 1):
            of_limit = f"arithmetic {100 * arithmetic:.0f} %"
        else:
            of_limit = f"memory {100 * of_memory:.0f} %" if of_memory <= 1 else "in cache"
        return (
            _time(seconds),
            f"{100 * share:.1f} %",
            f"{rate / 1e9:.0f}" if known else "",
            f"{memory / 1e9:.1f}",
            of_limit,
        )


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.1f} us"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."


def _named(pieces: Sequence[PieceProfile]) -> str:
    first, last = pieces[0].name or "between", pieces[-1].name
    return first if len(pieces) == 1 else f"{first} .. {last} ({len(pieces)})"


def _layers(pieces: Iterable[PieceProfile]) -> str:
    found = [layer for piece in pieces for layer in piece.layers]
    return ", ".join(found[:1]) + (f" and {len(found) - 1} more" if len(found) > 1 else "")
