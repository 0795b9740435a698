"""The functions of a program's variants, bound to the weights they run on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hotstart.model import Finder, Model
from hotstart.records.artifact import Artifact, Stitched
from hotstart.runtime.generated import run_code
from hotstart.runtime.units import Unit, instantiate
from hotstart.runtime.weights import Weights

Run = Callable[..., Any]
Binder = Callable[[list[torch.Tensor]], Run]


def bind(artifact: Artifact, model: Model, compare_code: bool = True) -> Binding:
    """Make the functions of an artifact's variants callable with a model's weights.

    Args:
        artifact: what to bind.
        model: keeps the weights.
        compare_code: whether functions that were traced must be what they were.
    """
    units = {unit.key: instantiate(unit) for unit in artifact.units}
    weights = Weights(model, artifact.requirements, dict(artifact.captured), compare_code)
    stitched = (stitched for call in artifact.calls for stitched in call.stitched)
    return Binding(weights, tuple(_binder(s, units, model) for s in stitched))


class Binding:
    """Hands out the variants' functions, bound to the weights the model has now.

    Binding is lazy, so that a program can be built for a model that has no weights yet. Functions
    are replaced all at once: a call that is under way keeps those it started with.
    """

    def __init__(self, weights: Weights, binders: Sequence[Binder]) -> None:
        self._weights = weights
        self._binders = binders
        self._lock = threading.Lock()
        self._bound: tuple[Callable[[], bool], tuple[Run, ...]] | None = None

    def __call__(self) -> tuple[Run, ...]:
        """The functions, by variant.

        Raises:
            ModelMismatch: the model is not what was compiled.
        """
        bound = self._bound
        if bound is not None and bound[0]():
            return bound[1]
        return self._bind()

    def refresh(self) -> None:
        """Compare everything anew, also what calls do not look at.

        Raises:
            ModelMismatch: the model is not what was compiled.
        """
        with self._lock:
            self._bound = None
            self._weights.forget()
        self()

    def _bind(self) -> tuple[Run, ...]:
        with self._lock:
            bound = self._bound
            if bound is not None and bound[0]():
                return bound[1]  # another thread was faster
            # Forgotten first, so that nothing keeps weights alive that the model has replaced.
            self._bound = None
            fetched = self._weights.fetch()
            runs = tuple(bind(fetched.tensors) for bind in self._binders)
            self._bound = (fetched.current, runs)
            return runs


def _binder(stitched: Stitched, units: Mapping[str, Unit], model: Model) -> Binder:
    make = run_code(stitched.code, {})["bind"]
    own = [units[key] for key in stitched.units]

    def rebind(tensors: list[Any]) -> Callable[..., Any]:
        owners = [*map(Finder(model).module, stitched.owners)] if stitched.owners else []
        weights = [tensors[slot] for slot in stitched.weights]
        run: Callable[..., Any] = make(weights, own, stitched.constants, owners)
        return run

    return rebind
