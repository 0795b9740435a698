"""A verified artifact's manifest and blobs as the records they were made of."""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from hotstart.artifact.compatibility import unreadable
from hotstart.artifact.container import Container
from hotstart.artifact.file_tensors import FileTensors
from hotstart.artifact.manifest import MALFORMED, Manifest, TensorLayout, map_values
from hotstart.artifact.values import decode
from hotstart.dtypes import dtype_of
from hotstart.records.artifact import Artifact, Blob
from hotstart.records.classes import FindClass, find_class
from hotstart.records.shapes import spanned


def to_artifact(container: Container, find: FindClass = find_class) -> Artifact:
    """The artifact in a container whose digests were checked.

    Args:
        container: the file.
        find: finds the classes that it mentions.

    Raises:
        CorruptArtifact: what it says does not hold together.
        IncompatibleArtifact: another version wrote it, whose records this one does not know.
        ArtifactError: it mentions a class that is not there.
    """
    blobs = container.blobs

    def found(kind: type, name: str) -> Any:
        if issubclass(kind, Blob):
            return kind(name, blobs[kind.file_name.format(name)])
        return find(name)

    try:
        manifest = msgspec.json.decode(container.manifest, type=Manifest, dec_hook=found)
        _find_names(manifest)
        tensors = FileTensors(manifest.tensors, blobs, _tensor)
        return map_values(manifest, lambda data: decode(data, tensors.find, find), tensors.find)
    except (*MALFORMED, RuntimeError) as error:
        raise unreadable(container.file, container.manifest, error) from error


def _find_names(manifest: Manifest) -> None:
    """Look up every dtype and device that a manifest names.

    Raises:
        ValueError: torch has no such dtype.
        RuntimeError: torch has no such device.
    """
    contracts = [call.contract for call in manifest.calls]
    found = {(weight.dtype, weight.device) for weight in manifest.requirements.weights}
    found |= {(spec.dtype, spec.device) for contract in contracts for spec in contract.tensors}
    found |= {(dtype, kind) for contract in contracts for kind, dtype in contract.autocast}
    for dtype, device in found:
        dtype_of(dtype)
        torch.device(device)


def _tensor(layout: TensorLayout, memory: memoryview) -> torch.Tensor:
    dtype, shape, stride = dtype_of(layout.dtype), layout.shape, layout.stride
    size = spanned(shape, stride) * dtype.itemsize
    if len(memory) != size:
        raise ValueError(f"a tensor of {size} bytes has {len(memory)}")
    if not size:
        return torch.empty_strided(shape, stride, dtype=dtype)
    # A copy, since the file's memory cannot be written to.
    return torch.frombuffer(bytearray(memory), dtype=dtype).as_strided(shape, stride)
