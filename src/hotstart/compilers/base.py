"""What a compiler is to hotstart: a function from a job to data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hotstart import _torch
from hotstart.partition import Graph, Piece
from hotstart.partition.digest import Token
from hotstart.records.artifact import CompiledUnit

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Bounds:
    """The sizes of an axis that a unit must serve, and the one to tune for."""

    low: int
    high: int
    hint: int


@dataclass(frozen=True)
class Job:
    """One different piece to compile for one variant.

    Attributes:
        key: hash of the piece, the sizes and the compiler's settings.
        piece: the piece.
        graph: the graph it is of, with the axes fixed that have one size.
        bounds: the other axes the piece depends on, in the order the unit is called with them.
        where: conditions on those axes that hold whenever the unit is called.
    """

    key: str
    piece: Piece
    graph: Graph
    bounds: Mapping[str, Bounds]
    where: tuple[sympy.Basic, ...] = ()


@dataclass(frozen=True)
class Narrowed:
    """What a compile assumed of sizes, where it does not hold for all that a unit must serve.

    Attributes:
        condition: what was assumed, over axis symbols.
    """

    condition: _torch.Condition


class Compiler(Protocol):
    """Turns jobs into units."""

    def token(self) -> Token:
        """Everything about the compiler and its settings that changes what it makes."""
        ...

    def warm_up(self) -> None:
        """Start whatever the first compile would otherwise wait for; returns at once."""
        ...

    def compile(self, job: Job) -> CompiledUnit | Narrowed:
        """Compile a job, or say for which of its sizes only it can be compiled.

        Raises:
            Exception: whatever the compiler raises.
        """
        ...

    def close(self) -> None:
        """Stop what `warm_up` started."""
        ...
