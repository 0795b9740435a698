"""A compiled unit as a function: kernels loaded, generated code executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.generated import run_source, unit_filename
from hotstart.runtime.kernels import load_kernel

Unit = Callable[..., Callable[[list[Any]], tuple[Any, ...]]]


def instantiate(unit: CompiledUnit) -> Unit:
    """The function of a unit that binds its weights."""
    scope: dict[str, Any] = {k.name: load_kernel(k.blob, k.digest) for k in unit.kernels}
    scope |= dict(unit.constants)
    scope = run_source(unit.source, unit_filename(unit.key), scope, unit.bytecode)
    made: Unit = scope["bind"]
    return made
