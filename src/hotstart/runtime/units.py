"""A compiled unit as a function: kernels loaded, generated code executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.generated import run_code
from hotstart.runtime.kernels import load_kernel
from hotstart.runtime.prepared import Prepare

Call = Callable[[list[Any]], tuple[Any, ...]]


class Unit:
    """A unit whose code is at hand."""

    def __init__(self, unit: CompiledUnit) -> None:
        scope: dict[str, Any] = {name: load_kernel(kernel) for name, kernel in unit.kernels}
        scope |= dict(unit.constants)
        self._bind: Callable[..., Call] = run_code(unit.code, scope)["bind"]
        self._kept = unit.kept
        self._preparations = unit.preparations

    def bound(self, prepare: Prepare, *weights: torch.Tensor) -> Call:
        """The function of the unit with weights, in order; those that it wants prepared are."""
        kept = weights if self._kept is None else [weights[number] for number in self._kept]
        made = [
            tensor
            for preparation in self._preparations
            for tensor in prepare(preparation, [weights[n] for n in preparation.weights])
        ]
        return self._bind(*kept, *made)
