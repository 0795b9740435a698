"""A load: a file, and a model or a checkpoint, to a program. Imports nothing that compiles."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hotstart.artifact import compatibility, container
from hotstart.artifact.container import Container
from hotstart.artifact.read import to_artifact
from hotstart.artifact.trust import Trust
from hotstart.checkpoint.checkpoint_weights import HeldWeights
from hotstart.checkpoint.files import open_checkpoint
from hotstart.checkpoint.prepared import PreparedWeights
from hotstart.checkpoint.tensors import Checkpoint
from hotstart.errors import ArtifactError, IncompatibleArtifact, ModelMismatch, OptionsError
from hotstart.events import Clock
from hotstart.faults import path_of
from hotstart.misses import OnMiss
from hotstart.model import Model, method_of
from hotstart.options import Outputs, Pack
from hotstart.program import ONE_TARGET, Program, Targets
from hotstart.records.artifact import Artifact
from hotstart.records.classes import FindClass, find_class, find_imported_class
from hotstart.runtime.bind import Binding, bind
from hotstart.runtime.bind_groups import Groups
from hotstart.runtime.load_report import list_loaded
from hotstart.runtime.weights.model_weights import weights_of
from hotstart.runtime.weights.weight_source import Source

if TYPE_CHECKING:
    from hotstart.first_call.set_up import SetUp

log = logging.getLogger("hotstart")

_NOT_THERE = (ImportError, AttributeError, LookupError, TypeError, ValueError)
"""What generated code raises when it is executed where something that it names is missing."""

_SMALL = 3
"""The size of an axis in the first call of a model that does not take the largest one."""


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Put off Python's garbage collection.

    A load makes thousands of objects that stay, and no cycles. Collections that these start look at
    all objects of the process: a tenth of a second after `import torch`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def load_file(
    file: str | os.PathLike[str],
    model: Callable[..., Any] | None,
    on_miss: OnMiss,
    *,
    weights: Any = None,
    outputs: Outputs = "auto",
    trust: Trust | None = None,
    compare_source: bool = True,
    pack: Pack = "now",
    groups: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
) -> Program:
    """Read a file, see that it fits, and bind it to weights. For arguments see `hotstart.load`.

    `trust` says what is wrong with a signature, if one is asked for.

    With `weights`, which are there where no model is, nothing of the model's is imported. With
    a clock, the report has what that was told of before, too.
    """
    clock = clock or Clock()
    with clock.phase("verify"):
        contents = container.read(file, trust, compatibility.best_that_fits)
    with clock.phase("fit"):
        scope: compatibility.Scope = "beside_guards" if model is not None else "found"
        compatibility.require_fit(contents, compare_source, scope)
    with clock.phase("unpack"):
        find = find_imported_class if model is None else find_class
        artifact = to_artifact(contents, find)
    with clock.phase("bind"):
        checkpoint = None if model is not None else _checkpoint(weights, artifact)
        prepared = None
        if isinstance(checkpoint, PreparedWeights):
            prepared, pack = checkpoint.made(), _require_packed(pack)
        try:
            source: Source
            if checkpoint is not None:
                source = HeldWeights(artifact, checkpoint)
            else:
                assert model is not None, "there is one or the other"
                source = weights_of(model, artifact, compare_source)
                outputs = "own" if outputs == "auto" else outputs  # its library is here already
            found = Groups(artifact.requirements, model, groups or {})
            binding = bind(artifact, source, pack, outputs, prepared, found)
            made, targets = list_loaded(artifact), _targets(contents, find)
            program = Program(artifact, model, binding, made, clock, on_miss, targets=targets)
        except _NOT_THERE as error:
            raise ArtifactError(
                f"{file}: expected the classes, functions and operators that the program calls, "
                f"found: {error}. Install and import what the model was built with."
            ) from error
        _begin(binding, model, artifact)  # it shows now, and not in a call, if the model fits
        if isinstance(checkpoint, PreparedWeights):
            checkpoint.require_whole()
    return program


def _begin(binding: Binding, model: Model | None, artifact: Artifact) -> None:
    """See that the model fits, after its first calls if these set up what it was compiled with.

    Raises:
        ModelMismatch: it does not; it is as it was.
    """
    try:
        binding.begin()
        return
    except ModelMismatch as error:
        if model is None or not artifact.requirements.set_up:
            raise
        after = _set_up(model, artifact)
        if after is None:
            raise
        mismatch = error
    with after.or_undone():
        try:
            binding.begin()
        except ModelMismatch:
            raise mismatch from None
    after.tell("loaded")


def _set_up(model: Model, artifact: Artifact) -> SetUp | None:
    """Make the first calls of a model; None if they change nothing."""
    from hotstart.first_call.fake_calls import FirstCall  # few loads need it
    from hotstart.first_call.set_up import set_up

    calls = [
        FirstCall(
            method_of(model, call.method),
            call.contract.parameters,
            call.contract.tensors,
            call.contract.axes,
            {dim.name: max(dim.min, min(_SMALL, dim.max)) for dim in call.contract.axes},
        )
        for call in artifact.calls
    ]
    return set_up(model, calls)


def _targets(contents: Container, find: FindClass) -> Targets:
    """The targets of a file, and what it has for those that were not read."""
    if not contents.targets:
        return ONE_TARGET
    file = os.path.abspath(contents.file)  # noqa: PTH100  the working folder may change

    def others() -> list[Artifact]:
        every = list(container.read_all(file))
        if every[0].signed != contents.signed:
            raise ArtifactError(
                f"{file}: expected the file that the program was loaded from, which has its code "
                "for other targets, found another. Load that one, or put it back."
            )
        return [to_artifact(each, find) for each in every if each.target != contents.target]

    return Targets([each.target for each in contents.targets], others)


def _checkpoint(weights: Any, artifact: Artifact) -> Checkpoint:
    """Open the weights that a user names: one checkpoint, or a prepared one and its original.

    Raises:
        ArtifactError, OptionsError: as `open_checkpoint`.
        IncompatibleArtifact: weights were prepared for something else, and there is no original.
    """
    if not isinstance(weights, list | tuple) or len(weights) != 2:
        checkpoint = open_checkpoint(weights)
        if isinstance(checkpoint, PreparedWeights):
            checkpoint.require_fit(artifact)
        return checkpoint
    prepared, original = weights
    file = path_of("weights", prepared)
    if not os.path.lexists(file):
        log.info("%s is not there; weights are prepared from the original", file)
        return open_checkpoint(original)
    try:
        checkpoint = _checkpoint(file, artifact)
    except IncompatibleArtifact as error:
        log.warning("weights are prepared from the original: %s", error)
        return open_checkpoint(original)
    if not isinstance(checkpoint, PreparedWeights):
        raise OptionsError(f"weights: got {file} as the first of two, takes prepared weights there")
    return checkpoint


def _require_packed(pack: Pack) -> Pack:
    """Choose when packed weights are bound that are there already.

    Raises:
        OptionsError: they are not to be packed.
    """
    if pack == "never":
        raise OptionsError(
            "pack: got 'never' with prepared weights, takes another: they are packed. Load with "
            "the original weights"
        )
    return "now" if pack == "background" else pack
