"""A compiled unit as a function: kernels loaded, generated code executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch

from hotstart.records.artifact import Artifact, Code, CompiledUnit, Stitched
from hotstart.runtime.code.generated import run_code
from hotstart.runtime.code.kernels import load_kernel
from hotstart.runtime.code.native import Library
from hotstart.runtime.weights.preparations import Prepare


class Unit:
    """A unit whose code is at hand.

    Args:
        unit: the unit.
        bind: gives the function of the unit, or what a native program has for it, with weights.
    """

    def __init__(self, unit: CompiledUnit, bind: Callable[..., Any]) -> None:
        self._bind = bind
        self._kept = unit.kept
        self._preparations = unit.preparations

    def bound(self, prepare: Prepare, *weights: torch.Tensor) -> Any:
        """The function of the unit with weights, in order; those that it wants prepared are."""
        kept = weights if self._kept is None else [weights[number] for number in self._kept]
        made = [
            tensor
            for preparation in self._preparations
            for tensor in prepare(preparation, [weights[n] for n in preparation.weights])
        ]
        return self._bind(*kept, *made)


class Form(msgspec.Struct, frozen=True):
    """One way in which a variant runs.

    Attributes:
        code: binds and calls it.
        scope: names that the code finds defined.
        units: those that it calls, by position.
        native: whether it is native code that calls them.
    """

    code: Code
    scope: Mapping[str, Any]
    units: Sequence[Unit]
    native: bool = False


class Forms:
    """Finds for the variants of an artifact the form that they run in; loads what that takes."""

    def __init__(self, artifact: Artifact) -> None:
        self._native = artifact.native
        self._library = None if artifact.native is None else Library(artifact.native)
        self._codes = {} if artifact.native is None else dict(artifact.native.units)
        self._units = {unit.key: unit for unit in artifact.units}
        self._loaded: dict[tuple[str, bool], Unit] = {}

    def of(self, number: int, stitched: Stitched) -> Form:
        """The form of a variant: native, if it has that form."""
        code = None if self._native is None else self._native.runs[number]
        if code is None or self._library is None:
            return self.python(stitched)
        units = [self._unit(key, native=True) for key in stitched.units]
        return Form(code, self._library.scope, units, native=True)

    def python(self, stitched: Stitched) -> Form:
        """The Python form of a variant, which every variant has."""
        return Form(stitched.code, {}, [self._unit(key, native=False) for key in stitched.units])

    def _unit(self, key: str, *, native: bool) -> Unit:
        if (key, native) not in self._loaded:
            unit = self._units[key]
            if native and self._library is not None:
                made = native_unit(unit, self._codes[key], self._library)
            else:
                made = python_unit(unit)
            self._loaded[key, native] = made
        return self._loaded[key, native]


def python_unit(unit: CompiledUnit, more: Mapping[str, Any] | None = None) -> Unit:
    """A unit that runs as Python, which calls its kernels; its code may find more names defined."""
    scope: dict[str, Any] = {name: load_kernel(kernel) for name, kernel in unit.kernels}
    return Unit(
        unit, run_code(unit.code, {**scope, **dict(unit.constants), **(more or {})})["bind"]
    )


def native_unit(unit: CompiledUnit, code: Code, library: Library) -> Unit:
    """A unit whose bodies a native program has; `code` binds them."""
    return Unit(unit, run_code(code, {**library.scope, **dict(unit.constants)})["bind"])
