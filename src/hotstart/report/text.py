"""The report as plain text, short enough to read for a model of any depth."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from hotstart.report.model import Report, UnitReport, VariantReport

MAX_ROWS = 40
"""Lines of units in a rendering, all variants together."""

_INDENT = "  "


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
    if report.inlined:
        rows = columns([(name, reason) for name, reason in report.inlined], "<<")
        blocks.append("\n".join(["run op by op, not compiled", *_indented(rows)]))
    if report.without:
        rows = columns(
            [(name, f"without {left_out}: {why}") for name, left_out, why in report.without], "<<"
        )
        blocks.append("\n".join(["compiled without a pass that is at fault", *_indented(rows)]))
    if report.unproven:
        rows = columns(report.unproven, "<<")
        blocks.append("\n".join(["not compared with the operators", *_indented(rows)]))
    return "\n\n".join(blocks)


def columns(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Cells as aligned lines.

    Args:
        rows: cells, as many in each row as `align` has characters.
        align: `<` (left) or `>` (right) for each column.
    """
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = _INDENT.join(f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True))
    return [line.format(*row).rstrip() for row in rows]


def memory(size: int) -> str:
    """A number of bytes with its unit, such as `1.5 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _totals(report: Report) -> str:
    pieces = f"{report.pieces} piece{'' if report.pieces == 1 else 's'}"
    parts = [pieces, f"{report.unique} unique", f"{report.reused} reused"]
    peak = f"; peak memory {memory(report.peak_memory_bytes)}" if report.peak_memory_bytes else ""
    return f"{report.wall_s:.2f} s: {', '.join(parts)}{peak}"


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
    told = ", ".join(f"{n} {action}" for action, n in counts.items() if n) or "nothing compiled"
    seconds = summary.seconds if summary else sum(unit.seconds for unit in units)
    return f"variant {name}: {told}, {seconds:.2f} s"


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
