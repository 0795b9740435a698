"""Tensors, integers and pieces of generated Python in C++."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hotstart._torch.graphs.operator_types import OpOverload
from hotstart._torch.native.c_shims import operator_name

_OF_REALS = (
    "aten::_scaled_dot_product_flash_attention_for_cpu", "mkldnn::_linear_pointwise",
    "mkldnn::_convolution_pointwise",
)  # fmt: skip
"""Operators whose results are floating-point numbers, whatever they take."""


@dataclass(eq=False)
class Place:
    """Variable or handle that has a tensor in C++.

    Attributes:
        cpp: the variable; for what is bound, the expression of its handle.
        names: number of Python names and lists that refer to it.
        bound: its index among bound values; -1 for other tensors.
        viewed: the base, if it is a view.
        given: the number of the argument, if it is one.
        real: whether it is known to hold floating-point numbers.
    """

    cpp: str
    names: int = 0
    bound: int = -1
    viewed: Place | None = None
    given: int | None = None
    real: bool = False

    @property
    def held(self) -> bool:
        """Tell whether it is kept by whoever bound it."""
        return self.bound >= 0

    @property
    def root(self) -> Place:
        """The place that owns its memory."""
        return self if self.viewed is None else self.viewed.root

    @property
    def handle(self) -> str:
        """The handle, for functions that read it."""
        return self.cpp if self.held else f"{self.cpp}.get()"

    @property
    def pointer(self) -> str:
        """The address of the data, for kernels."""
        return f"data({self.handle})"


@dataclass(frozen=True)
class Number:
    """An integer in C++."""

    cpp: str


@dataclass(frozen=True)
class Several:
    """The results of an operator that has several."""

    places: tuple[Place, ...]


@dataclass(frozen=True)
class Piece:
    """A bound unit, with its index among bound values."""

    place: int


@dataclass
class Arguments:
    """A list that a piece is called with."""

    values: list[Number | Place]


Value = Number | Place | Several | Piece | Arguments


@dataclass(frozen=True)
class Callee:
    """Signature of a piece.

    Attributes:
        results: how many tensors it returns.
        written: the tensors that it writes to, by number among those that it takes.
        writes_bound: whether it writes to bound tensors.
    """

    results: int
    written: frozenset[int] = frozenset()
    writes_bound: bool = False


@dataclass
class Surroundings:
    """Names that a function finds outside of itself.

    Attributes:
        kernels: numbers in the program's table of kernels, by name.
        operators: the dotted paths of operators, by the name that the code has for them.
        bound: names of tensors that are bound.
        pieces: what pieces are called like, by name.
        declare: notes a declaration.
    """

    kernels: Mapping[str, int]
    operators: Mapping[str, str]
    bound: frozenset[str]
    pieces: Mapping[str, Callee]
    declare: Callable[[str], None]


def gives_reals(operator: OpOverload) -> bool:
    """Tell whether all results of an operator are known to be floating-point numbers."""
    name, _ = operator_name(operator)
    return name in _OF_REALS
