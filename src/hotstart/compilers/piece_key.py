"""Hash what decides the unit that a compiler makes of a piece: the key of a piece.

| part | in the kind | in the key |
| --- | --- | --- |
| digest of the piece's graph, from `partition/digest` | yes | yes |
| which of its axes have a range, and the sizes of the others | yes | yes |
| the compiler, its settings, autocast and torch's version | yes | yes |
| the range of each axis, with the size to tune for | | yes |
| conditions on these axes that hold whenever the unit is called | | yes |

Of two units of one kind, the one for more sizes may serve both: see `Job.includes`. Where units
are kept, `cache/stored_pieces` adds the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from hotstart._torch.graphs.symbols import axis_symbol
from hotstart._torch.running.modes import autocast_state
from hotstart.partition import Graph, Piece
from hotstart.partition.tokens import Token, hash_token


@dataclass(frozen=True)
class Bounds:
    """The sizes of an axis that a unit must serve, and the one to tune for.

    Attributes:
        low, high, hint: the sizes.
        of_data: whether it is a number that depends on data, for which there are no variants.
    """

    low: int
    high: int
    hint: int
    of_data: bool = False


def piece_kind(graph: Graph, piece: Piece, bounds: Mapping[str, Bounds], compiler: Token) -> str:
    """Hash everything that decides a piece's unit but ranges, and conditions on them.

    Args:
        graph: the graph the piece is of, with the axes fixed that have one size.
        piece: the piece.
        bounds: the axes that have a range; only their names count.
        compiler: identifies the compiler and its settings.
    """
    fixed = tuple(
        "range" if axis in bounds else str(graph.fixed[axis_symbol(axis)]) for axis in piece.axes
    )
    autocast = tuple(f"{kind}:{dtype}" for kind, dtype in autocast_state())
    return hash_token((piece.digest, fixed, compiler, autocast, torch.__version__))


def piece_key(kind: str, bounds: Iterable[Bounds], conditions: tuple[str, ...]) -> str:
    """Hash everything that decides a piece's unit.

    Args:
        kind: see `piece_kind`.
        bounds: the ranges, in the order the unit is called with their axes.
        conditions: on these axes, as text with axes by number.
    """
    ranges = tuple(f"{b.low}..{b.high}@{b.hint}{' of data' * b.of_data}" for b in bounds)
    return hash_token((kind, ranges, conditions))
