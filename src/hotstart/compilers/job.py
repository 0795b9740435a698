"""Define jobs, and compilers as functions from jobs to units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from hotstart._torch.graphs.symbols import Condition, axis_symbol, python_source
from hotstart.capture.captured import example_of, tensors_in
from hotstart.compilers.piece_key import Bounds, piece_key
from hotstart.partition import Graph, Piece
from hotstart.partition.tokens import Token
from hotstart.records.artifact import CompiledUnit

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Job:
    """One different piece to compile for some sizes.

    Attributes:
        kind: hash of all that decides the unit but ranges: see `piece_key`.
        piece: the piece.
        graph: the graph it is part of, with the axes fixed that have one size.
        bounds: the other axes the piece depends on, in the order the unit is called with them.
        where: conditions on those axes that hold whenever the unit is called.
    """

    kind: str
    piece: Piece
    graph: Graph
    bounds: Mapping[str, Bounds]
    where: tuple[sympy.Basic, ...] = ()

    @cached_property
    def key(self) -> str:
        """Hash everything that decides the unit that a compiler makes."""
        return piece_key(self.kind, self.bounds.values(), self.conditions)

    def includes(self, other: Job) -> bool:
        """Tell whether a unit made for this job also serves another one.

        Jobs of one kind that were traced differently may give other shapes: some operators branch
        on a size without a guard.
        """
        mine, others = self.bounds.values(), other.bounds.values()
        return (
            self.kind == other.kind
            and all(m.low <= o.low and o.high <= m.high for m, o in zip(mine, others, strict=True))
            and set(self.conditions) <= set(other.conditions)
            and (self.graph.captured is other.graph.captured or self.shapes == other.shapes)
        )

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Write the conditions as text, with axes by number."""
        numbers = self.axis_numbers
        return tuple(sorted(python_source(c.xreplace(numbers)) for c in self.where))

    @cached_property
    def axis_numbers(self) -> dict[sympy.Symbol, sympy.Symbol]:
        """A symbol for the number of each axis, which is the same in jobs of one key."""
        return {
            axis_symbol(axis): axis_symbol(f"a{number}") for number, axis in enumerate(self.bounds)
        }

    @cached_property
    def shapes(self) -> tuple[tuple[int | sympy.Expr, ...], ...]:
        """List the traced shape of everything that the piece computes."""
        tensors = (t for node in self.piece.nodes for t in tensors_in(example_of(node)))
        return tuple(tuple(map(self.graph.expression, tensor.shape)) for tensor in tensors)


@dataclass(frozen=True)
class Candidate:
    """A job's piece, compiled in one way; tuning measures several and takes the fastest.

    Attributes:
        unit: the compiled unit.
        rows: number of rows of most linears that a template computes, over axes; None if it
            computes none.
    """

    unit: CompiledUnit
    rows: sympy.Expr | None = None


@dataclass(frozen=True)
class Narrowed:
    """A condition that a compile assumed, and that fails for some sizes of the job.

    Attributes:
        condition: the assumed condition, over axis symbols.
    """

    condition: Condition


class Compiler(Protocol):
    """Turns jobs into units."""

    def token(self) -> Token:
        """Identify the compiler and the settings that change its units."""
        ...

    def warm_up(self) -> None:
        """Start background work that the first compile would otherwise wait for."""
        ...

    def compile(self, job: Job) -> CompiledUnit | Narrowed:
        """Compile a job, or return the condition that holds for some of its sizes only.

        Raises:
            Exception: whatever the compiler raises.
        """
        ...

    def close(self) -> None:
        """Stop what `warm_up` started."""
        ...
