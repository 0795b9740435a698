"""Write a job as bytes, from which any process on this machine can make it: see `job_read`.

A job refers to the captured graph: nodes, fake tensors, Dynamo's symbols. The parts that a compiler
reads are written. From these the reader makes a graph of the piece alone, whose tensors have
symbols of their own. The rest of the captured graph is not written.

The key of a job hashes everything that decides its unit. The reader computes it again from the job
that it made, so data that lost or changed anything is refused, and never compiled.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import attribute_of
from hotstart._torch.graphs.operator_types import HigherOrderOperator, OpOverload, OpOverloadPacket
from hotstart._torch.graphs.symbols import is_fake
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import was_mutated
from hotstart.capture.captured import example_of
from hotstart.compilers.job import Job
from hotstart.compilers.piece_key import Bounds
from hotstart.partition.tokens import import_path
from hotstart.records.nested import Slot

if TYPE_CHECKING:
    import sympy

_META = ("stack_trace", "nn_module_stack", "source_fn_stack", "custom")
"""Metadata of a node that a compiler reads besides its value: see `extract.as_module`."""


class NotData(Exception):
    """A job that cannot be written as data; the message says why."""


@dataclass(frozen=True)
class TensorData:
    """A fake tensor. Numbers are expressions over axes, before any axis is fixed.

    Attributes:
        storage: numbers the storages; those inside of the piece count as different.
        writes: whether it was written to while tracing.
    """

    dtype: torch.dtype
    device: torch.device
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    offset: Any
    storage: int
    written: bool


@dataclass(frozen=True)
class NodeData:
    """A node: of the piece, or one whose tensor the piece reads (`args` is None then)."""

    op: str
    name: str
    target: Any
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]
    value: Any
    slot: Slot | None
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class JobData:
    """A job without the graph that its piece is part of.

    Attributes:
        key: the job's; what is made of this has to have the same.
        name: of the piece.
        axes: all of the graph, in its order.
        fixed: the axes of the piece that have one size.
        bounds: the other axes of the piece, as in `Job`.
        where: conditions on them.
        layers: as in `Piece`.
        outside: nodes whose tensors the piece reads, and inputs of the graph that are written to
            and share memory with those.
        nodes: those of the piece.
        inputs: of the piece, by number among `outside` and `nodes` together.
        outputs: likewise.
        held: the constants that nodes read, by name.
    """

    key: str
    name: str
    axes: tuple[str, ...]
    fixed: Mapping[str, int]
    bounds: Mapping[str, Bounds]
    where: tuple[sympy.Basic, ...]
    layers: tuple[str, ...]
    outside: tuple[NodeData, ...]
    nodes: tuple[NodeData, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    held: Mapping[str, Any]


# --- writing --------------------------------------------------------------------------------------


def job_data(job: Job) -> bytes:
    """Write a job as bytes.

    Raises:
        NotData: it refers to something that only this process has.
    """
    if not job.piece.portable:
        raise NotData("it calls what did not come with torch")
    try:
        return _Writer(job).written()
    except NotData:
        raise
    except Exception as error:
        raise NotData(f"{type(error).__name__}: {error}") from error


class _Writer:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._graph = job.graph.with_fixed({})
        self._storages: dict[int, int] = {}
        self._numbers: dict[fx.Node, int] = {}
        self._axes = set(map(str, job.graph.captured.axes))

    def written(self) -> bytes:
        job, piece = self._job, self._job.piece
        outside = [*piece.inputs, *self._written_beside()]
        for node in (*outside, *piece.nodes):
            self._numbers[node] = len(self._numbers)
        used = {*piece.axes, *job.bounds}
        data = JobData(
            key=job.key,
            name=piece.name,
            axes=tuple(map(str, job.graph.captured.axes)),
            fixed={str(s): int(n) for s, n in job.graph.fixed.items() if str(s) in used},
            bounds=dict(job.bounds),
            where=job.where,
            layers=piece.layers,
            outside=tuple(map(self._outside, outside)),
            nodes=tuple(map(self._inside, piece.nodes)),
            inputs=tuple(self._numbers[node] for node in piece.inputs),
            outputs=tuple(self._numbers[node] for node in piece.outputs),
            held={
                str(node.target): self._held(node) for node in piece.nodes if node.op == "get_attr"
            },
        )
        file = io.BytesIO()
        _Pickler(file, self._numbers).dump(data)
        return file.getvalue()

    def _written_beside(self) -> list[fx.Node]:
        """The inputs of the graph that are written to and share memory with inputs of the piece."""
        mine = {storage_of(self._plain(example_of(n))) for n in self._job.piece.inputs}
        return [
            node
            for node in self._graph.placeholders
            if node not in self._job.piece.inputs
            and was_mutated(example_of(node))
            and storage_of(example_of(node)) in mine
        ]

    def _outside(self, node: fx.Node) -> NodeData:
        slot = self._graph.placeholders.get(node)
        value = self._value(example_of(node), crosses=True)
        return NodeData("placeholder", node.name, node.name, None, {}, value, slot, {})

    def _inside(self, node: fx.Node) -> NodeData:
        args, kwargs, _ = self._graph.arguments(node)
        meta = {key: _as_text(node.meta[key], key) for key in _META if key in node.meta}
        value = self._value(example_of(node), crosses=node in self._job.piece.outputs)
        return NodeData(node.op, node.name, node.target, args, kwargs, value, None, meta)

    def _value(self, value: Any, *, crosses: bool) -> Any:
        if isinstance(value, tuple | list):  # also what `max` and `topk` return
            return tuple(self._value(item, crosses=crosses) for item in value)
        if isinstance(value, torch.Tensor):
            return self._tensor(self._plain(value), crosses)
        if value is None or type(value) in (int, float, bool, str):
            return value
        raise NotData(f"a node gives a {type(value).__qualname__}")

    def _plain(self, tensor: Any) -> torch.Tensor:
        if not (
            isinstance(tensor, torch.Tensor)
            and is_fake(tensor)
            and tensor.layout is torch.strided
            and tensor.device.type == "cpu"
            and not (tensor.is_nested or tensor.is_conj() or tensor.is_neg())
            and not tensor.is_quantized
        ):
            raise NotData(f"a node gives a {type(tensor).__qualname__} that is no plain tensor")
        return tensor

    def _tensor(self, tensor: torch.Tensor, crosses: bool) -> TensorData:
        storage = storage_of(tensor) if crosses else -1 - len(self._storages)
        return TensorData(
            tensor.dtype,
            tensor.device,
            tuple(map(self._number, tensor.shape)),
            tuple(map(self._number, tensor.stride())),
            self._number(tensor.storage_offset()) if crosses else 0,
            self._storages.setdefault(storage, len(self._storages)),
            was_mutated(tensor),
        )

    def _number(self, number: Any) -> Any:
        known = self._graph.expression(number)
        if not {str(s) for s in getattr(known, "free_symbols", ())} <= self._axes:
            raise NotData(f"{known} is no size of an axis")
        return known

    def _held(self, node: fx.Node) -> Any:
        held = attribute_of(self._graph.captured.module, str(node.target))
        if type(held) is torch.Tensor and held.layout is torch.strided and not held.is_quantized:
            return held.detach()
        raise NotData(f"{node.name} is a {type(held).__qualname__}")


def _as_text(value: Any, key: str) -> Any:
    """Replace classes and functions in a node's metadata by their names."""
    if isinstance(value, Mapping):
        return {str(k): _as_text(v, key) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_as_text(item, key) for item in value)
    if value is None or type(value) in (int, float, bool, str):
        return value
    if callable(value):
        return getattr(value, "__name__", "") if key == "source_fn_stack" else _class_name(value)
    raise NotData(f"{key} of a node has a {type(value).__qualname__}")


def _class_name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


class _Pickler(pickle.Pickler):
    """Names nodes by number, and functions and operators of torch by the path that leads there."""

    def __init__(self, file: io.BytesIO, numbers: Mapping[fx.Node, int]) -> None:
        super().__init__(file, protocol=5)
        self._numbers = numbers

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, fx.Node):
            return "node", self._numbers[obj]
        if isinstance(obj, OpOverload):
            namespace, _, name = obj._schema.name.partition("::")
            return "op", f"{namespace}.{name}.{obj._overloadname}"
        if isinstance(obj, OpOverloadPacket):
            return "op", str(obj)
        if isinstance(obj, HigherOrderOperator):
            return "op", f"higher_order.{obj.__name__}"
        if callable(obj) and not isinstance(obj, type) and (path := import_path(obj)) is not None:
            return "import", *path
        return None
