"""A compiled unit as a function: kernels loaded, generated code executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.generated import run_code
from hotstart.runtime.kernels import load_kernel

Unit = Callable[..., Callable[[list[Any]], tuple[Any, ...]]]


def instantiate(unit: CompiledUnit) -> Unit:
    """The function of a unit that binds its weights."""
    scope: dict[str, Any] = {name: load_kernel(kernel) for name, kernel in unit.kernels}
    scope |= dict(unit.constants)
    made: Unit = run_code(unit.code, scope)["bind"]
    return made
