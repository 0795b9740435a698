"""Make the job that `job_data` wrote: a graph of a piece alone, with symbols of its own."""

from __future__ import annotations

import importlib
import io
import operator
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from hotstart._torch.graphs.lazy_modules import lazy_graph_module
from hotstart._torch.graphs.symbols import axis_symbol, fake_mode, make_symbols
from hotstart.capture.captured import Captured
from hotstart.compilers.job import Job
from hotstart.compilers.piece_key import piece_kind
from hotstart.compilers.workers.job_data import JobData, NodeData, NotData, TensorData
from hotstart.partition import Graph, Piece
from hotstart.partition.digest import Canonical
from hotstart.partition.tokens import Token, hash_token
from hotstart.records.nested import Seq

_ANY = 1 << 40
_HINT = 1009
"""Bound and hint of all axes in tensors that only describe the captured graph. Symbols must not be
specialised, so no size may be 0, 1, or equal to another. Compilers use the bounds of the job."""


def job_of(data: bytes, compiler: Token) -> Job:
    """Make the job that was written.

    Args:
        data: what `job_data` gave.
        compiler: the token of the compiler that will compile it.

    Raises:
        NotData: the job that is made has another key than the one that was written.
    """
    found: JobData = _Unpickler(io.BytesIO(data)).load()
    job = _Reader(found).job(compiler)
    if job.key != found.key:
        raise NotData(f"its key is {job.key} here, and {found.key} where it was written")
    return job


class _Unpickler(pickle.Unpickler):
    """Finds what `_Pickler` named; nodes stay numbers until there is a graph."""

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case "node", number:
                return Numbered(number)
            case "op", path:
                return operator.attrgetter(path)(torch.ops)
            case "import", module, name:
                return operator.attrgetter(name)(importlib.import_module(module))
        raise NotData(f"no {pid[0]} is known")


@dataclass(frozen=True)
class Numbered:
    """A node among arguments, until it is made."""

    number: int


class _Reader:
    """Makes a graph of a piece alone, with fake tensors over symbols of its own."""

    def __init__(self, data: JobData) -> None:
        self._data = data
        axes = [axis for axis in data.axes if axis in data.fixed or axis in data.bounds]
        sizes = {axis: (0, _ANY, _HINT + 4 * number) for number, axis in enumerate(axes)}
        self._symbols = make_symbols(sizes)
        self._named = {axis_symbol(a): self._symbols.by_name[a] for a in axes}
        self._mode = fake_mode(self._symbols.env)
        self._bases: dict[int, torch.Tensor] = {}

    def job(self, compiler: Token) -> Job:
        data = self._data
        new = fx.Graph()
        nodes: list[fx.Node] = []
        with self._mode:
            self._make_bases()
            for each in (*data.outside, *data.nodes):
                made = self._node(new, each, nodes)
                made.meta.update(each.meta)
                made.meta["example_value"] = self._value(each.value)
                nodes.append(made)
        new.output(tuple(nodes[number] for number in data.outputs))
        root = torch.nn.Module()
        for name, held in data.held.items():
            setattr(root, name, held)
        module = lazy_graph_module(root, new)
        by_symbol = {symbol: axis for axis, symbol in self._named.items()}
        slots = tuple(each.slot for each in data.outside if each.slot is not None)
        captured = Captured(new, module, slots, by_symbol, Seq(tuple, ()), (), (), {}, ())
        return self._job(Graph(captured), nodes, compiler)

    def _job(self, graph: Graph, nodes: Sequence[fx.Node], compiler: Token) -> Job:
        """Digest what was made as a plan does, and hash it as jobs are."""
        data = self._data
        inputs = tuple(nodes[number] for number in data.inputs)
        inside = tuple(nodes[len(data.outside) :])
        outputs = tuple(nodes[number] for number in data.outputs)
        canonical = Canonical(graph)
        digest = hash_token(canonical.run(inside, inputs, outputs))
        piece = Piece(
            data.name,
            "compiled",
            inside,
            inputs,
            outputs,
            canonical.axes,
            data.layers,
            digest,
            True,
        )
        at_sizes = graph.with_fixed(data.fixed)
        kind = piece_kind(at_sizes, piece, data.bounds, compiler)
        return Job(kind, piece, at_sizes, data.bounds, data.where)

    def _node(self, new: fx.Graph, each: NodeData, nodes: Sequence[fx.Node]) -> fx.Node:
        if each.args is None:
            if each.slot is None:
                return new.create_node("call_function", _elsewhere, (), {}, each.name)
            return new.placeholder(each.name)

        def leaf(item: Any) -> Any:
            return nodes[item.number] if isinstance(item, Numbered) else item

        args, kwargs = map_aggregate((each.args, each.kwargs), leaf)
        return new.create_node(each.op, each.target, args, kwargs, each.name)

    def _make_bases(self) -> None:
        """Make the memory that several tensors share, or that one does not begin."""
        found = [
            t for each in (*self._data.outside, *self._data.nodes) for t in _tensors(each.value)
        ]
        counted = Counter(tensor.storage for tensor in found)
        for tensor in found:
            number = tensor.storage
            if number in self._bases or (counted[number] == 1 and tensor.offset == 0):
                continue
            # Large enough for all of them, and a multiple of every dtype's size: nobody asks.
            sharing = [other for other in found if other.storage == number]
            count = 16 * sum(map(self._reach, sharing))
            base = torch.empty(count, dtype=tensor.dtype, device=tensor.device)
            if any(other.written for other in sharing):
                torch.autograd.graph.increment_version(base)
            self._bases[number] = base

    def _reach(self, tensor: TensorData) -> Any:
        spans = zip(tensor.shape, tensor.strides, strict=True)
        return self._number(tensor.offset + 1 + sum(size * stride for size, stride in spans))

    def _value(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(self._value, value))
        if not isinstance(value, TensorData):
            return value
        shape = [self._number(size) for size in value.shape]
        strides = [self._number(stride) for stride in value.strides]
        base = self._bases.get(value.storage)
        if base is not None:
            seen = base if base.dtype is value.dtype else base.view(value.dtype)
            return seen.as_strided(shape, strides, self._number(value.offset))
        made = torch.empty_strided(shape, strides, dtype=value.dtype, device=value.device)
        if value.written:
            torch.autograd.graph.increment_version(made)
        return made

    def _number(self, number: Any) -> int | torch.SymInt:
        if isinstance(number, int):
            return number
        return self._symbols.integer(number.xreplace(self._named))


def _elsewhere() -> None:
    """Make a placeholder for the node outside of the piece that computes an input."""


def _tensors(value: Any) -> list[TensorData]:
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return [value] if isinstance(value, TensorData) else []
