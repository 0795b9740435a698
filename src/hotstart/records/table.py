"""Rows and numbers of bytes as text."""

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Cells as aligned lines.

    Args:
        rows: cells, as many in each row as `align` has characters.
        align: `<` (left) or `>` (right) for each column.
    """
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True))
    return [line.format(*row).rstrip() for row in rows]


def memory(size: int) -> str:
    """A number of bytes with its unit, such as `1.5 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
