"""Load a program without Python's torch, where that goes; imports are part of what it takes."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hotstart.errors import ArtifactError, HotstartError, IncompatibleArtifact
from hotstart.torchfree.libtorch import libtorch

_EXTENSIONS = (
    "array", "base64", "bisect", "ctypes", "fcntl", "hashlib", "math", "mmap", "msgspec",
)  # fmt: skip
"""Modules with extensions that are needed later: none can be imported while a library is opened."""

if TYPE_CHECKING:
    from hotstart.artifact.container import Container
    from hotstart.artifact.manifest import Manifest
    from hotstart.events import Clock
    from hotstart.options import Outputs
    from hotstart.torchfree.mapped_arrays import Weights
    from hotstart.torchfree.program import TorchFreeProgram

File = str | os.PathLike[str]


def load(
    file: File,
    weights: Any,
    outputs: Outputs = "auto",
    trusted_keys: Sequence[File | bytes] | None = None,
    compare_source: bool = True,
    clock: Clock | None = None,
) -> TorchFreeProgram | None:
    """Make a program of an artifact and prepared weights; None if it takes Python's torch.

    Args:
        file: the artifact.
        weights: as `hotstart.load` has them: the path of prepared ones, or `[that, the original]`,
            of which the second takes torch, as everything else does.
        outputs: the classes of results, as `hotstart.load` has them.
        trusted_keys: as `hotstart.load` has them.
        compare_source: likewise.
        clock: is told of the phases.

    Raises:
        ArtifactError: as `hotstart.load`.
    """
    from hotstart.events import Clock

    clock = clock or Clock()
    has_other = isinstance(weights, list | tuple) and len(weights) == 2
    prepared = weights[0] if has_other else weights
    with clock.phase("import"):
        if not isinstance(prepared, str | os.PathLike) or not _are_prepared(prepared):
            return None
        for module in _EXTENSIONS:
            importlib.import_module(module)
    opening = threading.Thread(target=_open, name="hotstart-libtorch")
    opening.start()  # which takes longer than all that comes before it is needed
    try:
        return _loaded(
            file, prepared, has_other, outputs, trusted_keys, compare_source, opening, clock
        )
    finally:
        opening.join()


def _are_prepared(weights: File) -> bool:
    from hotstart.artifact.disk import OpenFile
    from hotstart.artifact.weights_file import MAGIC, is_one

    if not os.path.isfile(weights):  # noqa: PTH113  a folder, or nothing: not for here to say
        return False
    with OpenFile(os.fspath(weights)) as source:
        return is_one(source.start(len(MAGIC)))


def _open() -> None:
    with contextlib.suppress(ArtifactError):  # which is raised again by who needs it
        libtorch()


def _loaded(
    file: File,
    weights: File,
    has_other: bool,
    outputs: Outputs,
    trusted_keys: Sequence[File | bytes] | None,
    compare_source: bool,
    opening: threading.Thread,
    clock: Clock,
) -> TorchFreeProgram | None:
    with clock.phase("import"):
        import logging

        from hotstart.artifact import compatibility, container, signing
        from hotstart.artifact.manifest import MALFORMED, named_classes
        from hotstart.torchfree.contracts import NeedsTorch
        from hotstart.torchfree.needs import needs_torch

    log = logging.getLogger("hotstart")
    with clock.phase("read"):
        trust = signing.truster(trusted_keys)
        contents = container.read(file, trust, compatibility.best_that_fits)
    with clock.phase("fit"):
        compatibility.require_fit(contents, compare_source, "found")
    with clock.phase("unpack"):
        try:
            artifact = named_classes(contents.manifest, contents.blobs)
        except MALFORMED as error:
            raise compatibility.unreadable(file, contents.manifest, error) from error
        reason = needs_torch(artifact)
    try:
        if reason:
            raise NeedsTorch(reason)
        with clock.phase("map"):
            mapped = _mapped(weights, artifact, has_other)
        return _bound(contents, artifact, mapped, outputs, clock, opening)
    except NeedsTorch as why:
        log.info("torch is imported, since %s", why)
        return None
    except HotstartError:
        raise
    except MALFORMED as error:
        raise compatibility.unreadable(file, contents.manifest, error) from error


def _mapped(weights: File, artifact: Manifest, has_other: bool) -> Weights:
    """Map prepared weights.

    Raises:
        ArtifactError: as `hotstart.load`.
        NeedsTorch: they are for something else, and there are others.
    """
    from hotstart.artifact.disk import OpenFile
    from hotstart.torchfree.contracts import NeedsTorch
    from hotstart.torchfree.mapped_arrays import Weights

    with OpenFile(os.fspath(weights)) as source:
        mapped = Weights(source)
    try:
        mapped.require_fit(artifact)
    except IncompatibleArtifact as error:
        if not has_other:
            raise
        raise NeedsTorch("weights are prepared from the original") from error
    return mapped


def _bound(
    contents: Container,
    artifact: Manifest,
    weights: Weights,
    outputs: Outputs,
    clock: Clock,
    opening: threading.Thread,
) -> TorchFreeProgram:
    """Bind an artifact to weights.

    Raises:
        ArtifactError: as `hotstart.load`.
        NeedsTorch: something of it takes Python's torch.
    """
    with clock.phase("import"):
        from hotstart.artifact.file_tensors import FileTensors
        from hotstart.records.report import Report
        from hotstart.runtime.load_report import list_loaded
        from hotstart.torchfree.array_weights import own_array
        from hotstart.torchfree.binding import Binding
        from hotstart.torchfree.contracts import NeedsTorch, decoded_contract
        from hotstart.torchfree.program import TorchFreeProgram
    with clock.phase("unpack"):
        contracts = [decoded_contract(call.contract) for call in artifact.calls]
    with clock.phase("library"):
        opening.join()
        try:
            torch = libtorch()
        except ArtifactError as error:  # a library of CUDA's, say, that only `import torch` finds
            raise NeedsTorch(str(error)) from error
    with clock.phase("bind"):
        weights.begin_check(partial(weights.sums_digest, torch), torch.library)
        tensors = FileTensors(artifact.tensors, contents.blobs, own_array)
        try:
            binding = Binding(artifact, torch, weights, tensors, outputs)
        except OSError as error:  # a kernel is linked to a library that only `import torch` finds
            raise NeedsTorch(str(error)) from error
        binding()
        weights.require_whole()
        names = [each.target for each in contents.targets]
        target = "" if contents.target is None else contents.target.target
        report = partial(Report.of, list_loaded(artifact), clock, weights.packed(), target, names)
        return TorchFreeProgram(artifact, contracts, binding, torch, report)
