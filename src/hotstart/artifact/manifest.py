"""What an artifact's manifest says, beyond what can be read without torch.

The records of `records.artifact` are in it as they are, with generated code, kernels and tensors
replaced by the names of blobs, and other Python values by what `values` makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import torch

from hotstart.artifact.values import class_path, find_class
from hotstart.records.artifact import (
    Attributes,
    Const,
    Contract,
    Map,
    PieceInfo,
    Proof,
    Record,
    Registered,
    Requirements,
    Seq,
    Slot,
    Tree,
)
from hotstart.records.shapes import Variant

TENSORS = "tensors.safetensors"
"""Name of the blob with all tensors."""


class SavedCode(msgspec.Struct, frozen=True):
    """Generated code: names of the blobs with its source and its bytecode."""

    filename: str
    source: str
    bytecode: str


class SavedTensor(msgspec.Struct, frozen=True):
    """What a tensor in the blob of tensors is. Its bytes are all it spans in memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class SavedUnit(msgspec.Struct, frozen=True):
    """A `CompiledUnit`; kernels by name with their digest, constants with the tensor each is."""

    key: str
    code: SavedCode
    kernels: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, str], ...]
    loose: tuple[int, ...]
    op_by_op: str
    proof: Proof = Proof()


class SavedStitched(msgspec.Struct, frozen=True):
    """A `Stitched`; its constants as values."""

    variant: Variant
    code: SavedCode
    units: tuple[str, ...]
    constants: tuple[Any, ...]
    weights: tuple[int, ...]
    owners: tuple[str, ...]
    sets: tuple[tuple[str, str], ...] = ()


class SavedCall(msgspec.Struct, frozen=True):
    """A `CompiledCall`."""

    name: str
    method: str
    contract: Contract
    stitched: tuple[SavedStitched, ...]


class Manifest(msgspec.Struct, frozen=True):
    """A manifest as a whole; the table of blobs is the container's own.

    Attributes:
        fingerprint: named parts that decide where the artifact fits.
        check: how the comparison with the build went when the artifact was saved.
        report: the build's report.
        pieces: what a user sees of the pieces.
        requirements: what the model must bring.
        calls: the ways it can be called.
        units: the compiled units.
        captured: by slot, the tensors that no module keeps.
        tensors: the tensors, by name.
    """

    fingerprint: dict[str, Any]
    check: dict[str, Any]
    report: dict[str, Any]
    pieces: tuple[PieceInfo, ...]
    requirements: Requirements
    calls: tuple[SavedCall, ...]
    units: tuple[SavedUnit, ...]
    captured: tuple[tuple[int, str], ...]
    tensors: dict[str, SavedTensor]


def kernel_blob(digest: str) -> str:
    """The name of the blob that holds the kernel of a digest."""
    return f"kernel_{digest}.so"


def to_builtins(manifest: Manifest) -> dict[str, Any]:
    """A manifest in the types of JSON.

    Raises:
        ArtifactError: it mentions a class that cannot be imported.
    """
    plain: dict[str, Any] = msgspec.to_builtins(manifest, enc_hook=_plain)
    return plain


def from_json(data: bytes) -> Manifest:
    """The manifest in verified bytes.

    Raises:
        msgspec.ValidationError: it is not what this version writes.
        ArtifactError: it mentions a class that is not there.
    """
    return msgspec.json.decode(data, type=Manifest, dec_hook=_typed)


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return class_path(value)
    assert isinstance(value, torch.dtype | torch.device)
    return str(value).removeprefix("torch.")


def _typed(kind: Any, data: Any) -> Any:
    if kind is torch.dtype:
        found = getattr(torch, data, None)
        if not isinstance(found, torch.dtype):
            raise msgspec.ValidationError(f"expected a dtype, found {data!r}")
        return found
    return torch.device(data) if kind is torch.device else find_class(data)


def map_contract(contract: Contract, function: Callable[[Any], Any]) -> Contract:
    """A contract with `function` applied to every value in it that is the caller's."""
    return msgspec.structs.replace(
        contract,
        parameters=tuple(
            msgspec.structs.replace(
                parameter,
                tree=map_tree(parameter.tree, function),
                default=function(parameter.default),
            )
            for parameter in contract.parameters
        ),
    )


def map_tree(tree: Tree, function: Callable[[Any], Any]) -> Tree:
    """A tree with `function` applied to every value in it."""
    match tree:
        case Slot():
            return tree
        case Const(value):
            return Const(function(value))
        case Seq(cls, items):
            return Seq(cls, tuple(map_tree(item, function) for item in items))
        case Map(cls, entries):
            return Map(cls, tuple((function(k), map_tree(v, function)) for k, v in entries))
        case Record(cls, fields):
            return Record(cls, tuple((name, map_tree(v, function)) for name, v in fields))
        case Attributes(cls, fields):
            return Attributes(cls, tuple((name, map_tree(v, function)) for name, v in fields))
        case Registered(cls, context, items):
            children = tuple(map_tree(item, function) for item in items)
            return Registered(cls, function(context), children)
