"""Records of native functions, and of results, for runtimes that run no Python.

A program's Python binds native functions by executing code. The same, found out once when a program
is built, is a table: tensors, functions with the tensors and functions that each is bound to, and
for every variant the function to call, its arguments and the places of its results.
"""

from typing import Literal, TypeAlias

import msgspec


class Weight(msgspec.Struct, frozen=True, tag="weight"):
    """A weight, by slot in the program's table of weights."""

    slot: int


class MadeTensor(msgspec.Struct, frozen=True, tag="made"):
    """A tensor that a preparation makes of weights.

    Attributes:
        preparation: the name of its code.
        weights: what it takes, as numbers of tensors in the wiring.
        number: which of its results it is.
    """

    preparation: str
    weights: tuple[int, ...]
    number: int


class Held(msgspec.Struct, frozen=True, tag="held"):
    """A constant that the file holds for a unit, by the unit's key and the name in its code."""

    unit: str
    name: str


class View(msgspec.Struct, frozen=True, tag="view"):
    """A view of another tensor of the wiring.

    Attributes:
        of: its number.
        further: elements from where that one begins.
    """

    of: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    further: int


Bound: TypeAlias = Weight | MadeTensor | Held | View


class Function(msgspec.Struct, frozen=True, array_like=True):
    """A function with what it runs on.

    Attributes:
        body: its number in the native program.
        held: for each place a tensor of the wiring, by number; functions before this one count
            downwards from -1.
    """

    body: int
    held: tuple[int, ...]


class WiredResult(msgspec.Struct, frozen=True, array_like=True):
    """A tensor among the results of a call.

    Attributes:
        name: how a user would write it, such as `logits`, `[0]` or `states[1]`.
        kind: `made` by the function, an `argument` as the caller passed it, or a `bound` tensor.
        number: of the function's result, the contract's tensor, or the wiring's tensor.
    """

    name: str
    kind: Literal["made", "argument", "bound"]
    number: int


class WiredVariant(msgspec.Struct, frozen=True):
    """A variant.

    Attributes:
        name: as messages have it.
        intervals: the smallest and the largest size of each axis of the contract.
        function: the number of the function that it calls with the sizes of all axes.
        arguments: the contract's tensors that the function takes, by number; a tensor as the caller
            passed it, not as it is laid out, counts downwards from -1.
        results: the tensors that it gives, in order.
    """

    name: str
    intervals: tuple[tuple[int, int], ...]
    function: int
    arguments: tuple[int, ...]
    results: tuple[WiredResult, ...]


class WiredCall(msgspec.Struct, frozen=True):
    """A way to call the program: its variants, in the order of the records.

    Attributes:
        axes: the sizes that each axis serves, as messages have them.
    """

    axes: tuple[str, ...]
    variants: tuple[WiredVariant, ...]


class Wiring(msgspec.Struct, frozen=True):
    """Bindings and results of a native program, for a runtime without Python.

    Attributes:
        reason: why there is no such runtime for the program; all else is empty then.
        units: for each unit its key and a digest of its preparations, as prepared weights have it.
        specs: digest of the table of weights, likewise.
        tensors: those that functions run on.
        functions: those that variants call, after those that they call themselves.
        calls: the ways it can be called.
    """

    reason: str = ""
    units: tuple[tuple[str, str], ...] = ()
    specs: str = ""
    tensors: tuple[Bound, ...] = ()
    functions: tuple[Function, ...] = ()
    calls: tuple[WiredCall, ...] = ()
