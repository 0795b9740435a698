"""Define jobs, the units that serve them, and the compiler as a function from one to the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from hotstart import _torch
from hotstart.partition import Graph, Piece
from hotstart.partition.digest import Token, hash_token
from hotstart.partition.plan import example_of, tensors_in
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
    """One different piece to compile for some sizes.

    Attributes:
        kind: hash of the piece, which of its axes have which one size, and the compiler's settings.
        piece: the piece.
        graph: the graph it is of, with the axes fixed that have one size.
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
        """Hash of everything that decides what a compiler makes of the job."""
        sizes = tuple(f"{b.low}..{b.high}@{b.hint}" for b in self.bounds.values())
        return hash_token((self.kind, sizes, self.conditions))

    def includes(self, other: Job) -> bool:
        """Tell whether a unit that is made for this job serves another one, too.

        Jobs of one kind that were traced differently may give other shapes: some operators decide
        by size without saying so.
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
        """The conditions as text, with axes by number."""
        return tuple(sorted(_torch.python_source(c.xreplace(self.numbers)) for c in self.where))

    @cached_property
    def numbers(self) -> dict[sympy.Symbol, sympy.Symbol]:
        """A symbol for the number of each axis, which is the same in jobs of one key."""
        return {
            _torch.axis_symbol(axis): _torch.axis_symbol(f"a{number}")
            for number, axis in enumerate(self.bounds)
        }

    @cached_property
    def shapes(self) -> tuple[tuple[int | sympy.Expr, ...], ...]:
        """The shape of everything that is computed in the piece, as it was traced."""
        tensors = (t for node in self.piece.nodes for t in tensors_in(example_of(node)))
        return tuple(tuple(map(self.graph.expression, tensor.shape)) for tensor in tensors)


@dataclass(frozen=True)
class Narrowed:
    """A condition on sizes that a compile assumed and that fails for some of those to serve.

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
