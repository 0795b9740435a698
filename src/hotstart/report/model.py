"""The record of a build or a load. It is plain data, so that it can be kept, sent and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

Action = Literal["compiled", "reused", "loaded"]
PhaseSeconds: TypeAlias = Mapping[str, float]
"""Seconds by phase, in the order the phases began. They add up to the wall time."""


class UnitReport(msgspec.Struct, frozen=True):
    """What was done for one piece and one variant.

    Attributes:
        piece: name of the piece.
        variant: name of the variant.
        action: `"compiled"`, `"reused"` from an equal piece, or `"loaded"` from an artifact or a
            cache.
        seconds: how long that took.
        reused_from: the piece and variant that were compiled instead, such as
            `piece_1 (seq=2..64)`; None unless reused.
    """

    piece: str
    variant: str
    action: Action
    seconds: float
    reused_from: str | None = None


class VariantReport(msgspec.Struct, frozen=True):
    """One variant as a whole.

    Attributes:
        name: name of the variant, such as `batch=1,seq=2..64`.
        seconds: how long its units and its stitched code took.
        pieces: compiled pieces it calls.
        unique: how many of them were compiled or loaded for it.
        reused: how many of them share the code of another unit.
    """

    name: str
    seconds: float
    pieces: int
    unique: int
    reused: int


class SplitReport(msgspec.Struct, frozen=True):
    """Sizes that one graph or one unit could not serve.

    Attributes:
        variant: the sizes, as the name of a variant.
        conditions: what was assumed of them and holds for some only, as Python over the axes, each
            with the line of the model or of torch it came from.
        into: the variants that were made of it; some of them may have been split again.
    """

    variant: str
    conditions: tuple[tuple[str, str], ...]
    into: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """What was compiled, reused and loaded, and how long each took.

    Attributes:
        wall_s: seconds from the start of the build to its end.
        phases: seconds by phase; they add up to `wall_s`.
        pieces: pieces of the graph.
        unique: different ones among them.
        reused: pieces that share the code of another.
        units: one entry for each compiled piece and variant.
        variants: one entry for each variant.
        splits: one entry for each time that sizes had to be served in parts, in order.
        inlined: name and reason of each piece that cannot be expressed as compiled data, and so
            runs op by op.
        proven: units that were compared with the operators they were made from, and do the same.
        without: name of each piece that was compiled without a pass of the compiler, the pass, and
            what the unit did with it.
        unproven: name of each piece that was not compared at some sizes, and why.
        peak_memory_bytes: the most memory the process held during the build.
    """

    wall_s: float
    phases: PhaseSeconds
    pieces: int
    unique: int
    reused: int
    units: tuple[UnitReport, ...] = ()
    variants: tuple[VariantReport, ...] = ()
    splits: tuple[SplitReport, ...] = ()
    inlined: tuple[tuple[str, str], ...] = ()
    proven: int = 0
    without: tuple[tuple[str, str, str], ...] = ()
    unproven: tuple[tuple[str, str], ...] = ()
    peak_memory_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The report in the types of JSON: dicts, lists, strings and numbers."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain

    def reproducible(self) -> dict[str, Any]:
        """The report as a dict without what differs from build to build: times, caches, paths."""
        plain = self.to_dict()
        for timed in (plain, *plain["units"], *plain["variants"]):
            for name in ("wall_s", "phases", "peak_memory_bytes", "seconds"):
                timed.pop(name, None)
        for unit in plain["units"]:
            unit["action"] = "reused" if unit["reused_from"] else "compiled"
        for split in plain["splits"]:
            split["conditions"] = [[condition, ""] for condition, _ in split["conditions"]]
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The report that `to_dict` described.

        Raises:
            msgspec.ValidationError: `data` is not such a description; the message names the field.
        """
        return msgspec.convert(data, cls)

    def __str__(self) -> str:
        from hotstart.report.text import render  # text.py imports this module

        return render(self)
