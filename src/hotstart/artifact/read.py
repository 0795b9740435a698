"""A verified artifact's manifest and blobs as the records they were made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from hotstart.artifact.container import Container
from hotstart.artifact.manifest import (
    TENSORS,
    Manifest,
    SavedCall,
    SavedStitched,
    SavedTensor,
    SavedUnit,
    from_json,
    kernel_blob,
    map_contract,
)
from hotstart.artifact.values import decode
from hotstart.errors import CorruptArtifact
from hotstart.records.artifact import Artifact, CompiledCall, CompiledUnit, Kernel, Stitched


def unpack(container: Container) -> Artifact:
    """The artifact in a container whose digests were checked.

    Raises:
        CorruptArtifact: what it says does not hold together.
        ArtifactError: it mentions a class that is not there.
    """
    try:
        return _Unpacker(from_json(container.manifest), container.blobs).artifact()
    except (msgspec.MsgspecError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise CorruptArtifact(
            container.file, "manifest", "what this version of hotstart writes", str(error)
        ) from error


class _Unpacker:
    def __init__(self, manifest: Manifest, blobs: Mapping[str, memoryview]) -> None:
        self.manifest = manifest
        self.blobs = blobs
        self._tensors: dict[str, torch.Tensor] = {}
        self._places = _places(blobs[TENSORS]) if manifest.tensors else {}

    def artifact(self) -> Artifact:
        manifest = self.manifest
        return Artifact(
            requirements=manifest.requirements,
            calls=tuple(map(self.call, manifest.calls)),
            units={unit.key: self.unit(unit) for unit in manifest.units},
            captured={slot: self.tensor(name) for slot, name in manifest.captured},
            pieces=manifest.pieces,
            fingerprint=manifest.fingerprint,
            report=manifest.report,
        )

    def value(self, data: Any) -> Any:
        return decode(data, self.tensor)

    def tensor(self, name: str) -> torch.Tensor:
        if name not in self._tensors:
            memory = self.blobs[TENSORS][slice(*self._places[name])]
            self._tensors[name] = _tensor(self.manifest.tensors[name], memory)
        return self._tensors[name]

    def unit(self, saved: SavedUnit) -> CompiledUnit:
        return CompiledUnit(
            key=saved.key,
            source=str(self.blobs[saved.code.source], "utf-8"),
            kernels=tuple(
                Kernel(name, self.blobs[kernel_blob(digest)], digest)
                for name, digest in saved.kernels
            ),
            constants=tuple((name, self.tensor(at)) for name, at in saved.constants),
            loose=saved.loose,
            op_by_op=saved.op_by_op,
            proof=saved.proof,
            bytecode=self.blobs[saved.code.bytecode],
        )

    def call(self, saved: SavedCall) -> CompiledCall:
        return CompiledCall(
            name=saved.name,
            method=saved.method,
            contract=map_contract(saved.contract, self.value),
            stitched=tuple(map(self.stitched, saved.stitched)),
        )

    def stitched(self, saved: SavedStitched) -> Stitched:
        return Stitched(
            variant=saved.variant,
            source=str(self.blobs[saved.code.source], "utf-8"),
            filename=saved.code.filename,
            units=saved.units,
            constants=tuple(map(self.value, saved.constants)),
            weights=saved.weights,
            owners=saved.owners,
            sets=saved.sets,
            bytecode=self.blobs[saved.code.bytecode],
        )


def _places(blob: memoryview) -> dict[str, tuple[int, int]]:
    """Where each tensor of a blob in the format of safetensors begins and ends."""
    start = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(bytes(blob[8:start]))
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
        for name, entry in header.items()
    }


def _tensor(saved: SavedTensor, memory: memoryview) -> torch.Tensor:
    spans = 1 + sum((n - 1) * step for n, step in zip(saved.shape, saved.stride, strict=True))
    size = spans * saved.dtype.itemsize if math.prod(saved.shape) else 0
    if len(memory) != size:
        raise ValueError(f"a tensor of {size} bytes has {len(memory)}")
    if not size:
        return torch.empty_strided(saved.shape, saved.stride, dtype=saved.dtype)
    # A copy, since the file's memory cannot be written to.
    flat = torch.frombuffer(bytearray(memory), dtype=saved.dtype)
    return flat.as_strided(saved.shape, saved.stride)
