"""Turn an artifact into something that runs: kernels loaded, generated code executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hotstart.generated import run_source, unit_filename
from hotstart.ir import Artifact, CompiledUnit, Stitched
from hotstart.loading.kernels import load_kernel
from hotstart.runtime.binding import Binder, Binding
from hotstart.runtime.weights import Weights
from hotstart.tensors import Model, modules

Unit = Callable[..., Callable[[list[Any]], tuple[Any, ...]]]


def bind(artifact: Artifact, model: Model, compare_code: bool = True) -> Binding:
    """Make the functions of an artifact's variants callable with a model's weights.

    Args:
        artifact: what to bind.
        model: keeps the weights.
        compare_code: whether functions that were traced must be what they were.
    """
    units = {key: instantiate(unit) for key, unit in artifact.units.items()}
    weights = Weights(model, artifact.requirements, artifact.captured, compare_code)
    stitched = (stitched for call in artifact.calls for stitched in call.stitched)
    return Binding(weights, tuple(_binder(s, units, model) for s in stitched))


def instantiate(unit: CompiledUnit) -> Unit:
    """The function of a unit that binds its weights."""
    scope: dict[str, Any] = {k.name: load_kernel(k.blob, k.digest) for k in unit.kernels}
    scope |= dict(unit.constants)
    scope = run_source(unit.source, unit_filename(unit.key), scope, unit.bytecode)
    made: Unit = scope["bind"]
    return made


def _binder(stitched: Stitched, units: Mapping[str, Unit], model: Model) -> Binder:
    make = run_source(stitched.source, stitched.filename, {}, stitched.bytecode)["bind"]
    own = [units[key] for key in stitched.units]

    def rebind(tensors: list[Any]) -> Callable[..., Any]:
        paths = dict(modules(model)) if stitched.owners else {}
        owners = [paths[path] for path in stitched.owners]
        weights = [tensors[slot] for slot in stitched.weights]
        run: Callable[..., Any] = make(weights, own, stitched.constants, owners)
        return run

    return rebind
