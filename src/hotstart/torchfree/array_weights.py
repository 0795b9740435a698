"""The weights of a program without torch: prepared ones, and tensors that the artifact brings."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from typing import Any

from hotstart.artifact.file_tensors import FileTensors
from hotstart.artifact.manifest import Manifest, TensorLayout
from hotstart.errors import ModelMismatch
from hotstart.records.artifact import WeightSpec
from hotstart.records.shapes import is_laid_out, spanned
from hotstart.runtime.entry.refusal_words import described_weight
from hotstart.runtime.shared_memory import WeightsInMemory
from hotstart.runtime.weights.owners import HeldTensors
from hotstart.torchfree.arrays import Array, ArrayMemory, described
from hotstart.torchfree.contracts import NeedsTorch
from hotstart.torchfree.libtorch import Libtorch, is_known, size_of
from hotstart.torchfree.mapped_arrays import Weight, Weights
from hotstart.torchfree.memory import copied, laid_out

_ALIGNMENT = 64

_MEMORY = ArrayMemory()


def own_array(layout: TensorLayout, memory: memoryview) -> Array:
    """Make a tensor of an artifact's file, in memory of its own.

    Raises:
        ValueError: it has other bytes than its layout spans.
        NeedsTorch: it is of a dtype that arrays do not have.
    """
    if not is_known(layout.dtype):
        raise NeedsTorch(f"a tensor of the file is of {layout.dtype}")
    size = spanned(layout.shape, layout.stride) * size_of(layout.dtype)
    if len(memory) != size:
        raise ValueError(f"a tensor of {size} bytes has {len(memory)}")
    own = bytearray(size + _ALIGNMENT)  # a copy, since the file's memory cannot be written to
    address = ctypes.addressof(ctypes.c_char.from_buffer(own))
    skipped = -address % _ALIGNMENT
    own[skipped : skipped + size] = memory
    return Array(address + skipped, layout.dtype, layout.shape, layout.stride, own)


class Held(HeldTensors):
    """The tensors of a table of weights, by slot. Calls write to them, and replace some.

    Raises:
        NeedsTorch: there is none for a slot; a load with torch says which one.
    """

    def __init__(
        self, artifact: Manifest, torch: Libtorch, weights: Weights, tensors: FileTensors[Array]
    ) -> None:
        self._torch = torch
        super().__init__(artifact.requirements.weights, weights.where)
        captured = dict(artifact.captured)
        left_out = {one.slot: one.tensor for one in artifact.left_out or ()}
        for slot, spec in enumerate(self._specs):
            found = weights.named(spec.name)
            if spec.kind == "captured":
                found = tensors.find(captured[slot])
            elif found is None and left_out.get(slot) is not None:
                found = self._own(spec, tensors.find(left_out[slot]))
            if found is None:
                raise NeedsTorch(f"{spec.name} is in neither file")
            self.tensors.append(found)
        self._memory = (0, WeightsInMemory(_MEMORY, self._specs, list(self.tensors)))

    def require_fit(self) -> None:
        """See that tensors are such, and lie so, as the table of weights asks for.

        Raises:
            ModelMismatch: with every one that is not.
        """
        problems = [
            (spec.name, described_weight(spec), _found(tensor))
            for spec, tensor in zip(self._specs, self.tensors, strict=True)
            if not _fits(spec, tensor)
        ] or _MEMORY.misplaced(self._specs, self.tensors)
        if problems:
            raise ModelMismatch(problems, self._about)

    def meeting(
        self, arguments: Sequence[Array], written: Collection[int]
    ) -> tuple[int, str] | None:
        """Find an argument and a weight that share memory: a `runtime.shared_memory.Meeting`."""
        changes, memory = self._memory
        if changes != self.changes:
            changes = self.changes
            memory = WeightsInMemory(_MEMORY, self._specs, list(self.tensors))
            self._memory = (changes, memory)
        return memory.meeting(arguments, written)

    def by_name(self) -> dict[str, Weight]:
        """Return the tensors as they are now, by name."""
        return {spec.name: t for spec, t in zip(self._specs, self.tensors, strict=True)}

    def _own(self, spec: WeightSpec, tensor: Array) -> Array:
        """A tensor of the artifact, in memory that only this slot has, where calls write to it.

        Equal tensors are in the artifact once, and equal numbers may be there once.
        """
        if spec.mutated:
            return copied(self._torch, tensor, spec.stride)
        return laid_out(self._torch, tensor, spec.stride)


def _fits(spec: WeightSpec, tensor: Any) -> bool:
    if not isinstance(tensor, Array):  # packed, and of the shape that it had
        return isinstance(tensor, Weight)
    if (tensor.dtype, tensor.shape) != (spec.dtype, spec.shape):
        return False
    return is_laid_out(spec.shape, tensor.strides, spec.stride)


def _found(tensor: Any) -> str:
    if not isinstance(tensor, Array):
        return "nothing"
    return f"{described(tensor)}, strides {list(tensor.strides)}"
