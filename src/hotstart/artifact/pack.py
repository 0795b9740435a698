"""An artifact as a manifest and blobs."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import torch

from hotstart.artifact.manifest import (
    TENSORS,
    Manifest,
    SavedCall,
    SavedCode,
    SavedStitched,
    SavedTensor,
    SavedUnit,
    kernel_blob,
    map_contract,
)
from hotstart.artifact.values import encode
from hotstart.errors import ArtifactError
from hotstart.records.artifact import Artifact, CompiledCall, CompiledUnit, Kernel, Stitched
from hotstart.runtime.generated import bytecode, stitched_filename, unit_filename

_SAFETENSORS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def pack(artifact: Artifact) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, as long as nothing was compared, and the blobs of an artifact.

    Raises:
        ArtifactError: it holds something that cannot be said as data.
    """
    packer = _Packer()
    requirements = artifact.requirements
    captured = [requirements.weights[slot] for slot in artifact.captured]
    written = [spec.name for spec in captured if spec.mutated]
    if written:
        raise ArtifactError(
            f"the model writes to {', '.join(written)}, which no module keeps: expected state "
            "that a loaded program finds in the model. Register it as a buffer of a module."
        )
    manifest = Manifest(
        fingerprint=artifact.fingerprint,
        check={},
        report=artifact.report,
        pieces=artifact.pieces,
        requirements=requirements,
        calls=tuple(packer.call(number, call) for number, call in enumerate(artifact.calls)),
        units=tuple(packer.unit(unit) for unit in artifact.units.values()),
        captured=tuple((slot, packer.tensor(t)) for slot, t in artifact.captured.items()),
        tensors=packer.tensors,
    )
    return manifest, packer.finished()


class _Packer:
    def __init__(self) -> None:
        self.tensors: dict[str, SavedTensor] = {}
        self._blobs: dict[str, bytes] = {}
        self._memory: list[tuple[str, torch.Tensor, bytes]] = []
        self._names: dict[int, str] = {}

    def value(self, value: Any) -> Any:
        return encode(value, self.tensor)

    def tensor(self, tensor: torch.Tensor) -> str:
        """Keep what a tensor spans in memory; the name to find it by."""
        if id(tensor) in self._names:
            return self._names[id(tensor)]
        plain = tensor.detach().resolve_conj().resolve_neg().cpu()
        name = self._names[id(tensor)] = f"tensor_{len(self._names)}"
        self.tensors[name] = SavedTensor(plain.dtype, tuple(plain.shape), plain.stride())
        spanned = _spanned(plain)
        data = ctypes.string_at(plain.data_ptr(), spanned * plain.itemsize) if spanned else b""
        self._memory.append((name, tensor, data))  # the tensor, so that its id is not used again
        return name

    def call(self, number: int, call: CompiledCall) -> SavedCall:
        return SavedCall(
            name=call.name,
            method=call.method,
            contract=map_contract(call.contract, self.value),
            stitched=tuple(self.stitched(f"{number}_{i}", s) for i, s in enumerate(call.stitched)),
        )

    def stitched(self, number: str, stitched: Stitched) -> SavedStitched:
        filename = stitched_filename(stitched.variant, stitched.source)
        return SavedStitched(
            variant=stitched.variant,
            code=self._code(f"stitched_{number}", filename, stitched.source),
            units=stitched.units,
            constants=tuple(map(self.value, stitched.constants)),
            weights=stitched.weights,
            owners=stitched.owners,
            sets=stitched.sets,
        )

    def unit(self, unit: CompiledUnit) -> SavedUnit:
        return SavedUnit(
            key=unit.key,
            code=self._code(f"unit_{unit.key[:16]}", unit_filename(unit.key), unit.source),
            kernels=tuple((k.name, self._kernel(k)) for k in unit.kernels),
            constants=tuple((name, self.tensor(tensor)) for name, tensor in unit.constants),
            loose=unit.loose,
            op_by_op=unit.op_by_op,
            proof=unit.proof,
        )

    def finished(self) -> dict[str, bytes]:
        """All blobs, by name."""
        if self._memory:
            self._blobs[TENSORS] = self._safetensors()
        return self._blobs

    def _code(self, name: str, filename: str, source: str) -> SavedCode:
        if "from __main__ import" in source:
            raise ArtifactError(
                "the program builds or calls something that is defined in __main__, which is "
                "another module in every process. Move its definition into a module."
            )
        code = SavedCode(filename, f"{name}.py", f"{name}.bytecode")
        self._blobs[code.source] = source.encode()
        self._blobs[code.bytecode] = bytecode(source, filename)
        return code

    def _kernel(self, kernel: Kernel) -> str:
        self._blobs[kernel_blob(kernel.digest)] = bytes(kernel.blob)
        return kernel.digest

    def _safetensors(self) -> bytes:
        """The tensors in the format of safetensors; flat where they have gaps or another order."""
        header: dict[str, Any] = {}
        at = 0
        for name, _, data in self._memory:
            saved = self.tensors[name]
            kind = _SAFETENSORS.get(saved.dtype, "U8")
            flat = kind == "U8" or not _plain_layout(saved)
            shape = [len(data) // (1 if kind == "U8" else saved.dtype.itemsize)] if flat else None
            header[name] = {
                "dtype": kind,
                "shape": list(saved.shape) if shape is None else shape,
                "data_offsets": [at, at + len(data)],
            }
            at += len(data)
        written = json.dumps(header, separators=(",", ":")).encode()
        written += b" " * (-len(written) % 8)
        size = len(written).to_bytes(8, "little")
        return b"".join([size, written, *(data for _, _, data in self._memory)])


def _spanned(tensor: torch.Tensor) -> int:
    """How many elements there are from a tensor's first to its last in memory."""
    if tensor.numel() == 0:
        return 0
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)


def _plain_layout(saved: SavedTensor) -> bool:
    expected = 1
    for size, stride in zip(reversed(saved.shape), reversed(saved.stride), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= max(size, 1)
    return True
