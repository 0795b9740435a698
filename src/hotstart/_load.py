"""`hotstart.load`: a file and a model to a program. Imports nothing that compiles."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hotstart import container, preflight
from hotstart.errors import ArtifactError, OptionsError
from hotstart.events import Clock
from hotstart.ir import Artifact
from hotstart.loading import bind, unpack
from hotstart.report.model import Report, UnitReport
from hotstart.runtime.program import OnMiss, Program
from hotstart.tensors import Model

if TYPE_CHECKING:
    from hotstart.options import MissPolicy


_NOT_THERE = (ImportError, AttributeError, LookupError, TypeError, ValueError)
"""What generated code raises when it is executed where something that it names is missing."""


def load(
    file: str | os.PathLike[str],
    model: Callable[..., Any],
    *,
    trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None = None,
    verify_source: bool = True,
    on_miss: MissPolicy = "error",
) -> Program:
    """Make a program from a file that `Program.save` wrote, with the weights of a model.

    Nothing is traced or compiled, and nothing is written. Everything is verified before anything is
    executed, but a file that verifies is code: load only what you trust, or give keys.

    Args:
        file: the artifact.
        model: a module or function of the structure the artifact was built from; any checkpoint.
        trusted_keys: public keys, as files, as text or as 32 raw bytes. If given, the file must be
            signed by one of them.
        verify_source: whether functions that were traced must be what they were at the build.
        on_miss: as in `hotstart.Options`.

    Returns:
        A program that behaves as the one that was saved.

    Raises:
        ArtifactError: the file cannot be read, or needs code that is not there.
        CorruptArtifact: it is damaged, or no artifact.
        IncompatibleArtifact: it does not fit this machine, these versions or these sources.
        UntrustedArtifact: keys were given, and none of them signed it.
        ModelMismatch: the model's tensors, modules, hooks or operators are not those it was built
            for.
    """
    if on_miss not in ("error", "eager", "compile"):
        raise OptionsError(f"on_miss: got {on_miss!r}, takes 'error', 'eager' or 'compile'")
    clock = Clock()
    with clock.phase("verify"):
        contents = container.read(file, preflight.truster(trusted_keys))
    with clock.phase("fit"):
        preflight.require_fit(file, contents.manifest, verify_source)
    with clock.phase("unpack"):
        artifact = unpack(contents)

    def compile_for(target: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        from hotstart._api import compile  # only for on_miss="compile"

        return compile(target, args, kwargs)

    with clock.phase("bind"):
        try:
            binding = bind(artifact, model, compare_code=verify_source)
            report = _report(clock, artifact)
            program = Program(artifact, model, binding, report, OnMiss(on_miss, compile_for))
        except _NOT_THERE as error:
            raise ArtifactError(
                f"{file}: expected the classes, functions and operators that the program calls, "
                f"found: {error}. Install and import what the model was built with."
            ) from error
        binding()  # whether the model fits shows now and not in the first call
    program.report = _report(clock, artifact)
    return program


def _report(clock: Clock, artifact: Artifact) -> Report:
    """What was loaded; the build's own report stays in the artifact."""
    built = artifact.report["units"]
    units = tuple(
        UnitReport(unit["piece"], unit["variant"], "loaded", 0.0, unit["reused_from"])
        for unit in built
    )
    return Report(
        wall_s=clock.wall_s(),
        phases=clock.phases(),
        pieces=len(artifact.pieces),
        unique=len(artifact.units),
        reused=len(units) - len(artifact.units),
        units=units,
        inlined=tuple((name, reason) for name, reason in artifact.report["inlined"]),
        proven=sum(bool(unit.proof.sizes) for unit in artifact.units.values()),
        without=tuple(map(tuple, artifact.report.get("without", ()))),
        unproven=tuple(map(tuple, artifact.report.get("unproven", ()))),
    )
