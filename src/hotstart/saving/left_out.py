"""Take along what a model has and its checkpoints leave out, in little room."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from msgspec.structs import replace

from hotstart.model import contents
from hotstart.records.artifact import Artifact
from hotstart.records.standalone import LeftOut
from hotstart.runtime.weights.weight_source import Source


def with_left_out(artifact: Artifact, source: Source) -> Artifact:
    """Return an artifact with the tensors that no checkpoint holds, as its program has them now."""
    return replace(artifact, left_out=tuple(_compact(source.left_out())))


def _compact(found: Sequence[LeftOut]) -> Iterator[LeftOut]:
    """Keep equal tensors once, and one element of those that are the same number throughout.

    Every layer has its own causal mask or rotary table, and caches are zeros until they are used.
    """
    known: dict[tuple[object, ...], torch.Tensor] = {}
    for one in found:
        if one.tensor is None:
            yield one
            continue
        tensor = one.tensor.detach()
        data = contents(tensor) or b""
        item = data[: tensor.itemsize]
        if tensor.numel() > 1 and data == item * tensor.numel():
            tensor = tensor[(slice(0, 1),) * tensor.dim()].clone().expand(tensor.shape)
        digest = hashlib.sha256(data).digest()
        key = (digest, tensor.dtype, tuple(tensor.shape), tensor.stride())
        yield LeftOut(one.slot, known.setdefault(key, tensor))
