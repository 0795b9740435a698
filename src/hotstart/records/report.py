"""The record of a build or a load: plain data, which can be kept, sent, compared and shown."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

import msgspec

from hotstart.events import Clock, Span
from hotstart.records.table import columns, memory

Action = Literal["compiled", "reused", "loaded"]
MAX_ROWS = 40
"""Lines of units in a rendering, all variants together."""

_INDENT = "  "

PhaseSeconds: TypeAlias = Mapping[str, float]
"""Seconds by phase, in the order the phases began. They add up to the wall time."""


class PieceInfo(msgspec.Struct, frozen=True):
    """A piece as users see it.

    Attributes:
        name: `piece_0`, ...; pieces of a further graph of the same call are `graph_1.piece_0`, ...;
            those of a named call begin with its name, as in `decode.piece_0`.
        digest: hash of everything about it that reaches a compiler.
        kind: `"compiled"`, or `"inlined"`: splitting operators, which stitched code calls itself.
        layers: paths of the submodules it came from.
        reused_from: the first piece with the same digest, if that is another one.
    """

    name: str
    digest: str
    kind: Literal["compiled", "inlined"]
    layers: tuple[str, ...]
    reused_from: str | None


class UnitReport(msgspec.Struct, frozen=True):
    """Unit of one piece for one variant, and how it was made.

    Attributes:
        piece: name of the piece.
        variant: name of the variant.
        action: `"compiled"`, `"reused"` from an equal piece, or `"loaded"` from an artifact or a
            cache.
        seconds: how long that took the process that did it.
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
        seconds: how long the build waited for its units. Workers compile them side by side, and
            before, so that units may have taken more or less.
        pieces: compiled pieces it calls.
        unique: different units that were compiled or loaded for it.
        reused: pieces that run a unit made for another piece or variant.
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
            with the line of the model it came from, or that of torch if no other is known.
        into: the variants that were made of it; some of them may have been split again.
    """

    variant: str
    conditions: tuple[tuple[str, str], ...]
    into: tuple[str, ...]


class Packed(msgspec.Struct, frozen=True):
    """Preparations of weights when they were bound, such as packing.

    Attributes:
        seconds: how long that took.
        bytes: the memory it takes, besides the weights'.
        tensors: how many there are.
        mapped: bytes that were prepared before and come from a file; they took no time, and
            processes share them.
    """

    seconds: float = 0.0
    bytes: int = 0
    tensors: int = 0
    mapped: int = 0


class WorkerReport(msgspec.Struct, frozen=True):
    """The processes that compiled beside the one that builds.

    Attributes:
        processes: how many there were.
        seconds: what they spent on units of the program; beside the wall time, not part of it.
        peak_memory_bytes: bound of the memory that the workers and all C++ compilers of the build
            held at a time: the sum of their peaks, with memory that several of them share.
    """

    processes: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0


class Summary(msgspec.Struct, frozen=True):
    """Counts and lists of what was compiled, reused and loaded.

    Attributes:
        pieces: pieces of all graphs.
        unique: different units that were compiled or loaded, over all variants.
        reused: pieces that run a unit made for another piece or variant, over all variants.
        units: one entry for each compiled piece and variant.
        variants: one entry for each variant.
        splits: one entry for each time that sizes had to be served in parts, in order.
        op_by_op: name and reason of each piece that could not be compiled, so runs op by op.
        proven: units that were compared with the operators they were made from, and do the same.
        without: name of each piece that was compiled without a pass of the compiler, the pass, and
            what the unit did with it.
        unproven: name of each piece that was not compared at some sizes, and why.
        not_packed: name of each piece that runs on all weights as they are although they should be
            packed, and why.
        linears: name of each piece whose linears were measured, and how they are computed.
        not_native: name of each variant that runs as Python although it may be native, and why.
        peak_memory_bytes: the most memory the process held during the build; that of its
            workers comes on top.
        workers: the processes that compiled beside it.
    """

    pieces: int
    unique: int
    reused: int
    units: tuple[UnitReport, ...] = ()
    variants: tuple[VariantReport, ...] = ()
    splits: tuple[SplitReport, ...] = ()
    op_by_op: tuple[tuple[str, str], ...] = ()
    proven: int = 0
    without: tuple[tuple[str, str, str], ...] = ()
    unproven: tuple[tuple[str, str], ...] = ()
    not_packed: tuple[tuple[str, str], ...] = ()
    linears: tuple[tuple[str, str], ...] = ()
    not_native: tuple[tuple[str, str], ...] = ()
    peak_memory_bytes: int = 0
    workers: WorkerReport = WorkerReport()

    def counts(self) -> str:
        """Count the pieces and what they run, in words and so that it adds up.

        Such as `8 pieces = 3 compiled + 5 reused`. Where variants share graphs, a piece is used in
        each of them: `5 pieces; 15 uses in 3 variants = 6 compiled + 9 reused`.
        """
        pieces = f"{self.pieces} piece{'' if self.pieces == 1 else 's'}"
        uses, variants = self.unique + self.reused, len({unit.variant for unit in self.units})
        called = self.pieces - len({unit.piece for unit in self.units}) if self.units else 0
        loaded = sum(u.action == "loaded" and u.reused_from is None for u in self.units)
        made = [(self.unique - loaded, "compiled"), (loaded, "loaded"), (self.reused, "reused")]
        if uses == self.pieces - called:
            parts = _sum_of([*made, (called, "called as operators")])
            return f"{pieces} = {parts}" if parts else pieces
        others = f", {called} of them called as operators" if called else ""
        return f"{pieces}{others}; {uses} uses in {variants} variants = {_sum_of(made)}"

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON: dicts, lists, strings and numbers."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain

    def reproducible(self) -> dict[str, Any]:
        """The same as a dict without what differs from build to build: times, caches, paths."""
        plain = self.to_dict()
        for timed in (plain, *plain["units"], *plain["variants"]):
            for name in (
                "wall_s",
                "phases",
                "peak_memory_bytes",
                "seconds",
                "packed",
                "workers",
                "spans",
            ):
                timed.pop(name, None)
        for unit in plain["units"]:
            unit["action"] = "reused" if unit["reused_from"] else "compiled"
        for split in plain["splits"]:
            split["conditions"] = [[condition, ""] for condition, _ in split["conditions"]]
        return plain


class Report(Summary, frozen=True, kw_only=True):
    """Record of a build or load, with times in seconds.

    Attributes:
        wall_s: seconds from the start of the build or load to the end of its last phase.
        phases: seconds by phase; they add up to `wall_s`.
        packed: what was made of weights, as far as they are bound.
        target: the processors that the code is for; empty where the program has it for one target.
        targets: all that the program has code for, the best first; likewise.
        spans: what was done when, phases and pieces, here and in workers, in order.
    """

    wall_s: float
    phases: PhaseSeconds
    packed: Packed = Packed()
    target: str = ""
    targets: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()

    @classmethod
    def of(
        cls,
        made: Summary,
        clock: Clock,
        packed: Packed,
        target: str = "",
        targets: Iterable[str] = (),
    ) -> Self:
        """Report what was made, with the times of a clock."""
        phases = clock.phases()
        parts = msgspec.structs.asdict(made)
        return cls(
            **parts,
            wall_s=sum(phases.values()),
            phases=phases,
            packed=packed,
            target=target,
            targets=tuple(targets),
            spans=clock.spans(),
        )

    def __str__(self) -> str:
        return render(self)


# --- as text --------------------------------------------------------------------------------------


def render(report: Report, max_rows: int = MAX_ROWS) -> str:
    """A report as text: totals, seconds by phase, then units by variant.

    Neighbours that did the same thing share a line, such as
    `piece_2 .. piece_31  30 reused from piece_1`.

    Args:
        report: what to render.
        max_rows: most lines of units, all variants together; the rest is summed up.
    """
    blocks = [_totals(report)]
    if report.phases:
        blocks.append(_phases(report))
    if report.splits:
        blocks.append("\n".join(["served in parts", *_indented(_splits(report, max_rows))]))
    blocks.extend(_variants(report, max_rows))
    if report.op_by_op:
        rows = columns(report.op_by_op, "<<")
        blocks.append("\n".join(["run op by op, not compiled", *_indented(rows)]))
    if report.without:
        rows = columns(
            [(name, f"without {left_out}: {why}") for name, left_out, why in report.without], "<<"
        )
        blocks.append("\n".join(["compiled without a pass that is at fault", *_indented(rows)]))
    if report.unproven:
        rows = columns(report.unproven, "<<")
        blocks.append("\n".join(["not compared with the operators", *_indented(rows)]))
    if report.not_packed:
        rows = columns(report.not_packed, "<<")
        blocks.append("\n".join(["run on weights that are not packed", *_indented(rows)]))
    if report.linears:
        rows = columns(report.linears, "<<")
        blocks.append("\n".join(["linears, as measured", *_indented(rows)]))
    if report.not_native:
        rows = columns(report.not_native, "<<")
        blocks.append("\n".join(["run as Python, not as native code", *_indented(rows)]))
    return "\n\n".join(blocks)


def _totals(report: Report) -> str:
    peak = f"; peak memory {memory(report.peak_memory_bytes)}" if report.peak_memory_bytes else ""
    beside = _workers(report.workers)
    told = f"{report.wall_s:.2f} s: {report.counts()}{peak}{beside}{_packed(report.packed)}"
    if not report.targets:
        return told
    return f"{told}\nruns the code for {report.target}, of {', '.join(report.targets)}"


def _sum_of(counts: Iterable[tuple[int, str]]) -> str:
    return " + ".join(f"{count} {name}" for count, name in counts if count)


def _workers(workers: WorkerReport) -> str:
    if not workers.processes:
        return ""
    several = "" if workers.processes == 1 else "s"
    did = f"compiled for {workers.seconds:.2f} s" if workers.seconds else "had nothing to compile"
    peak = memory(workers.peak_memory_bytes)
    return f"; {workers.processes} worker{several} {did}, with at most {peak}"


def _packed(packed: Packed) -> str:
    if not packed.tensors:
        return ""
    mapped = f"; {memory(packed.mapped)} of prepared weights mapped" if packed.mapped else ""
    if not packed.bytes:  # views, or all of it mapped
        return mapped
    return f"{mapped}; {memory(packed.bytes)} made of weights in {packed.seconds:.2f} s"


def _phases(report: Report) -> str:
    whole = report.wall_s or 1.0
    rows = [("phase", "seconds", "%")]
    rows += [(name, f"{s:.3f}", f"{100 * s / whole:.1f}") for name, s in report.phases.items()]
    return "\n".join(columns(rows, "<>>"))


def _splits(report: Report, max_rows: int) -> Iterator[str]:
    for split in report.splits[:max_rows]:
        for condition, source in split.conditions:
            at = f"  ({source})" if source else ""
            yield f"{split.variant}: {condition}{at}"
        yield f"{_INDENT}into {len(split.into)}: {', '.join(split.into)}"
    if len(report.splits) > max_rows:
        yield f"and {len(report.splits) - max_rows} more"


def _variants(report: Report, max_rows: int) -> Iterator[str]:
    by_variant: dict[str, list[UnitReport]] = {variant.name: [] for variant in report.variants}
    for unit in report.units:
        by_variant.setdefault(unit.variant, []).append(unit)
    summaries = {variant.name: variant for variant in report.variants}
    rows_each = max_rows // max(1, len(by_variant))
    for name, units in by_variant.items():
        rows = columns(list(_rows(units, rows_each)), "<<><") if rows_each else []
        yield "\n".join([_heading(name, units, summaries.get(name)), *_indented(rows)])


def _heading(name: str, units: Sequence[UnitReport], summary: VariantReport | None) -> str:
    counts = {"compiled": 0, "loaded": 0, "reused": 0}
    for unit in units:
        counts[unit.action] += 1
    told = _sum_of((count, action) for action, count in counts.items()) or "nothing compiled"
    if not counts["compiled"]:
        return f"variant {name}: {told}"
    spent = sum(unit.seconds for unit in units)
    waited = f", the build waited {summary.seconds:.2f} s" if summary else ""
    return f"variant {name}: {told}; {spent:.2f} s of compiling{waited}"


def _rows(units: Iterable[UnitReport], limit: int) -> Iterator[tuple[str, str, str, str]]:
    runs = [list(run) for _, run in itertools.groupby(units, _deed)]
    shown = runs if len(runs) <= limit else runs[: limit - 1]
    for run in shown:
        first, last = run[0], run[-1]
        alone = len(run) == 1
        names = first.piece if alone else f"{first.piece} .. {last.piece}"
        action = first.action if alone else f"{len(run)} {first.action}"
        origin = f"from {_origin(first)}" if first.reused_from else ""
        yield names, action, _seconds(run), origin
    rest = [unit for run in runs[len(shown) :] for unit in run]
    if rest:
        actions = sorted({unit.action for unit in rest})
        yield f"and {len(rest)} more", " or ".join(actions), _seconds(rest), ""


def _deed(unit: UnitReport) -> tuple[object, ...]:
    # What was compiled stays on a line of its own: that is where the time went.
    alone = unit.piece if unit.action == "compiled" else None
    return unit.action, unit.reused_from, alone


def _origin(unit: UnitReport) -> str:
    return (unit.reused_from or "").removesuffix(f" ({unit.variant})")


def _seconds(units: Iterable[UnitReport]) -> str:
    return f"{sum(unit.seconds for unit in units):.3f} s"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (_INDENT + line for line in lines)
