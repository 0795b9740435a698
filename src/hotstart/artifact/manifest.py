"""Define the manifest: the records of an artifact, and tables of the blobs they name.

Nothing here imports torch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from hotstart.artifact.blobs import Row
from hotstart.records.artifact import Artifact, Blob, Stitched, StitchedCall
from hotstart.records.contract import Contract
from hotstart.records.nested import Attributes, Const, Map, Record, Registered, Seq, Slot, Tree

TENSORS = "tensors.safetensors"
"""Name of the blob with all tensors."""

# Errors that decoding or reading a manifest raises if hotstart did not write it.
MALFORMED = (
    msgspec.MsgspecError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError,
    RecursionError,
)  # fmt: skip


class TensorLayout(msgspec.Struct, frozen=True):
    """The layout of a tensor in the blob of tensors, which holds all the memory it spans.

    Attributes:
        dtype: its name, such as `float32`.
        shape: sizes.
        stride: strides, in elements.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TargetContents(msgspec.Struct, frozen=True):
    """Contents of a file with several targets for one of them.

    Attributes:
        target: its name.
        instructions: the instruction set extensions that its code may use.
        units: how many compiled units there are.
        kernels: how many different kernels, with the library that joins the units.
        bytes: all that a load of it reads.
        own_bytes: those of them that no other target has.
    """

    target: str
    instructions: tuple[str, ...]
    units: int
    kernels: int
    bytes: int
    own_bytes: int


class Manifest(Artifact, frozen=True, kw_only=True):
    """The manifest of an artifact's file.

    Attributes:
        requirements: what the model must bring: weights, modules, hooks, operators.
        calls: the ways it can be called, each with its contract and variants.
        units: the compiled units that the code calls.
        captured: tensors the graph reads that no module keeps, each with its slot.
        pieces: what a user sees of the pieces.
        fingerprint: named parts that decide where it fits.
        report: the build's report, as a dict.
        left_out: tensors of the model that no checkpoint holds.
        naming: how names of checkpoints may differ.
        native: the variants as native code, if they have that form.
        check: how the comparison with the build went when it was saved; empty if there was none.
        tensors: the tensors that the file holds, by name.
        blobs: name, offset, size and SHA-256 of each blob.
        targets: what the file has for each target, the best first; empty where it has one.

    Only a load brings what the file has besides. In what `hotstart.inspect` returns, blobs and
    kernels have names and no bytes, tensors are the names they have in `tensors`, other values are
    as in the JSON, and the place of each class is taken by one of the same `__module__` and
    `__qualname__`.
    """

    check: dict[str, Any]
    tensors: dict[str, TensorLayout]
    blobs: tuple[Row, ...]
    targets: tuple[TargetContents, ...] = ()


def outline(data: bytes) -> Manifest:
    """The manifest in verified bytes, without what only a load brings.

    Raises:
        MALFORMED: it is not what this version writes.
    """
    return msgspec.json.decode(data, type=Manifest, dec_hook=_named)


def named_classes(data: bytes, blobs: Mapping[str, memoryview]) -> Manifest:
    """The manifest in verified bytes, with the bytes of its blobs, and classes by name only.

    Raises:
        MALFORMED: it is not what this version writes.
    """

    def named(kind: type, name: str) -> Any:
        found = _named(kind, name)
        if isinstance(found, Blob):
            found.data = blobs[found.file_name.format(name)]
        return found

    return msgspec.json.decode(data, type=Manifest, dec_hook=named)


def _named(kind: type, data: str) -> Any:
    if issubclass(kind, Blob):
        return kind(data)
    module, _, name = data.partition(":")
    return type(name, (), {"__module__": module, "__qualname__": name})


Transform = Callable[[Any], Any]


def map_values(artifact: Artifact, value: Transform, tensor: Transform) -> Artifact:
    """An artifact with every `Value` and every `Tensor` in it changed."""

    def mapped_call(call: StitchedCall) -> StitchedCall:
        contract, stitched = map_contract(call.contract, value), tuple(map(mapped, call.stitched))
        return replace(call, contract=contract, stitched=stitched)

    def mapped(stitched: Stitched) -> Stitched:
        return replace(stitched, constants=tuple(map(value, stitched.constants)))

    return Artifact(
        requirements=artifact.requirements,
        calls=tuple(map(mapped_call, artifact.calls)),
        units=tuple(
            replace(unit, constants=tuple((name, tensor(t)) for name, t in unit.constants))
            for unit in artifact.units
        ),
        captured=tuple((slot, tensor(t)) for slot, t in artifact.captured),
        left_out=None
        if artifact.left_out is None
        else tuple(
            one if one.tensor is None else replace(one, tensor=tensor(one.tensor))
            for one in artifact.left_out
        ),
        naming=artifact.naming,
        pieces=artifact.pieces,
        fingerprint=artifact.fingerprint,
        report=artifact.report,
        native=artifact.native,
    )


def map_contract(contract: Contract, change: Transform) -> Contract:
    """A contract with every `Value` in it changed."""
    parameters = tuple(
        replace(p, tree=map_tree(p.tree, change), default=change(p.default))
        for p in contract.parameters
    )
    return replace(contract, parameters=parameters)


def map_tree(tree: Tree, change: Transform) -> Tree:
    """A tree with every `Value` in it changed."""
    match tree:
        case Slot():
            return tree
        case Const(value):
            return Const(change(value))
        case Seq(_, items):
            return replace(tree, items=tuple(map_tree(item, change) for item in items))
        case Map(cls, entries):
            return Map(cls, tuple((change(k), map_tree(v, change)) for k, v in entries))
        case Record(_, fields) | Attributes(_, fields):
            return replace(tree, fields=tuple((name, map_tree(v, change)) for name, v in fields))
        case Registered(cls, context, items):
            return Registered(cls, change(context), tuple(map_tree(i, change) for i in items))
