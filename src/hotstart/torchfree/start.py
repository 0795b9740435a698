"""Load a program without Python's torch, where that goes; imports are part of what it takes."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hotstart.errors import ArtifactError
from hotstart.torchfree.library import libtorch

_EXTENSIONS = ("array", "base64", "ctypes", "hashlib", "math", "mmap", "msgspec")
"""Modules with extensions that are needed later: none can be imported while a library is opened."""

if TYPE_CHECKING:
    from hotstart.torchfree.program import TorchFreeProgram


def load(
    file: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None = None,
    compare_source: bool = True,
) -> TorchFreeProgram | None:
    """Make a program of an artifact and prepared weights; None if it takes Python's torch.

    Raises:
        ArtifactError: as `hotstart.load`.
    """
    if not _are_prepared(weights):
        return None
    for module in _EXTENSIONS:
        importlib.import_module(module)
    opening = threading.Thread(target=_open, name="hotstart-libtorch")
    opening.start()  # which takes longer than all that comes before it is needed
    try:
        return _loaded(file, weights, trusted_keys, compare_source, opening)
    finally:
        opening.join()


def _are_prepared(weights: str | os.PathLike[str]) -> bool:
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
    file: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None,
    compare_source: bool,
    opening: threading.Thread,
) -> TorchFreeProgram | None:
    import logging

    from hotstart.artifact import compatibility, container, signing
    from hotstart.artifact.manifest import MALFORMED, named_classes
    from hotstart.torchfree.program import bound, needs_torch

    contents = container.read(file, signing.truster(trusted_keys))
    compatibility.require_fit(file, contents.manifest, compare_source, "found")
    try:
        artifact = named_classes(contents.manifest, contents.blobs)
    except MALFORMED as error:
        raise compatibility.unreadable(file, contents.manifest, error) from error
    opening.join()
    try:
        torch, reason = libtorch(), needs_torch(artifact)
    except ArtifactError as error:  # such as a library of CUDA's that only `import torch` finds
        torch, reason = None, str(error)
    if torch is None or reason:
        logging.getLogger("hotstart").info("torch is imported, since %s", reason)
        return None
    return bound(artifact, torch, weights)
