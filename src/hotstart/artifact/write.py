"""An artifact as a manifest and blobs."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import msgspec
import torch

from hotstart.artifact.manifest import TENSORS, TensorLayout, map_values
from hotstart.artifact.values import encode
from hotstart.dtypes import dtype_of, name_of
from hotstart.errors import ArtifactError
from hotstart.records.artifact import Artifact, Blob
from hotstart.records.classes import class_path
from hotstart.records.shapes import dense_strides, layout_fits, spanned

_SAFETENSORS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def to_manifest(artifact: Artifact) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest, as long as nothing was compared, and the blobs of an artifact.

    Raises:
        ArtifactError: it holds something that cannot be said as data.
    """
    _require_portable(artifact)
    writer = _Writer()
    named = map_values(artifact, lambda value: encode(value, writer.tensor), writer.tensor)
    manifest = msgspec.to_builtins(named, enc_hook=writer.name)
    return {**manifest, "check": {}, "tensors": writer.tensors}, writer.finished()


def _require_portable(artifact: Artifact) -> None:
    specs = [artifact.requirements.weights[slot] for slot, _ in artifact.captured]
    written = [spec.name for spec in specs if spec.mutated]
    if written:
        raise ArtifactError(
            f"the model writes to {', '.join(written)}, which no module keeps: expected state "
            "that a loaded program finds in the model. Register it as a buffer of a module."
        )
    codes = [unit.code for unit in artifact.units]
    codes += [stitched.code for call in artifact.calls for stitched in call.stitched]
    types = [t for call in artifact.calls for s in call.stitched for _, t in s.types]
    if any("from __main__ import" in code.text for code in codes) or any(
        wanted.path.startswith("__main__:") for wanted in types
    ):
        raise ArtifactError(
            "the program builds or calls something that is defined in __main__, which is "
            "another module in every process. Move its definition into a module."
        )


class _Writer:
    """Collects what a manifest only names.

    Attributes:
        tensors: the manifest's table of tensors.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, TensorLayout] = {}
        self._blobs: dict[str, bytes] = {}
        self._memory: list[tuple[str, torch.Tensor, bytes]] = []
        self._names: dict[int, str] = {}

    def name(self, value: Any) -> str:
        """The name of a blob, which is kept, or of a class."""
        if isinstance(value, type):
            return class_path(value)
        assert isinstance(value, Blob), f"a manifest cannot say {value!r}"
        self._blobs[value.file_name.format(value.name)] = bytes(value.data)
        return value.name

    def tensor(self, tensor: torch.Tensor) -> str:
        """Keep what a tensor spans in memory; the name to find it by."""
        if id(tensor) in self._names:
            return self._names[id(tensor)]
        plain = tensor.detach().resolve_conj().resolve_neg().cpu()
        name = self._names[id(tensor)] = f"tensor_{len(self._names)}"
        self.tensors[name] = TensorLayout(name_of(plain.dtype), tuple(plain.shape), plain.stride())
        size = spanned(plain.shape, plain.stride()) * plain.itemsize
        data = ctypes.string_at(plain.data_ptr(), size) if size else b""
        self._memory.append((name, tensor, data))  # the tensor, so that its id is not used again
        return name

    def finished(self) -> dict[str, bytes]:
        """Return all blobs, by name."""
        if self._memory:
            self._blobs[TENSORS] = self._safetensors()
        return self._blobs

    def _safetensors(self) -> bytes:
        """The tensors in the format of safetensors; flat where they have gaps or another order."""
        header: dict[str, Any] = {}
        at = 0
        for name, _, data in self._memory:
            layout = self.tensors[name]
            kind = _SAFETENSORS.get(layout.dtype, "U8")
            flat = kind == "U8" or not _is_plain(layout)
            itemsize = 1 if kind == "U8" else dtype_of(layout.dtype).itemsize
            header[name] = {
                "dtype": kind,
                "shape": [len(data) // itemsize] if flat else list(layout.shape),
                "data_offsets": [at, at + len(data)],
            }
            at += len(data)
        written = json.dumps(header, separators=(",", ":")).encode()
        written += b" " * (-len(written) % 8)
        size = len(written).to_bytes(8, "little")
        return b"".join([size, written, *(data for _, _, data in self._memory)])


def _is_plain(layout: TensorLayout) -> bool:
    dense = dense_strides(layout.shape, range(len(layout.shape)))
    return layout_fits(layout.shape, layout.stride, dense, "fixed")
