"""Extract a job's piece as a graph module with example inputs and its own shape environment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate
from torch.fx.proxy import GraphAppendingTracer, Proxy

from hotstart._torch.graphs.lazy_modules import lazy_graph_module
from hotstart._torch.graphs.nodes import attribute_of
from hotstart._torch.graphs.symbols import (
    Symbols,
    assume,
    axis_symbol,
    fake_mode,
    make_symbols,
    without_size_assumptions,
)
from hotstart._torch.graphs.values import evaluate, storage_of
from hotstart.capture.captured import example_of
from hotstart.compilers.job import Job
from hotstart.partition.graph import movable


@dataclass(frozen=True)
class Extracted:
    """The arguments of a compiler.

    Attributes:
        module: the piece; returns a tuple of tensors.
        inputs: fake example inputs, sizes of dynamic axes first.
        symbols: the axes as symbols of the environment that the inputs live in.
        mode: the fake mode of the inputs.
        assumed: the conditions that the environment was told to assume.
    """

    module: fx.GraphModule
    inputs: tuple[Any, ...]
    symbols: Symbols
    mode: Any
    assumed: frozenset[Any] = frozenset()


def extract(job: Job) -> Extracted:
    """Make the module and the example inputs for a job.

    Shapes, strides and storage offsets of the inputs are expressions over the job's axes, or plain
    numbers where every axis is fixed. Inputs that share memory share it here too.
    """
    symbols = make_symbols(
        {f"a{i}": (b.low, b.high, b.hint) for i, b in enumerate(job.bounds.values())}
    )
    named = {axis_symbol(axis): symbols.by_name[f"a{i}"] for i, axis in enumerate(job.bounds)}
    assumed = assume(symbols.env, [c.xreplace(named) for c in job.where])
    mode = fake_mode(symbols.env)
    sizes = [symbols.integer(symbol) for symbol in named.values()]

    def number(value: Any) -> int | torch.SymInt:
        found = job.graph.number_at(value, named)
        return found if isinstance(found, int) else symbols.integer(found)

    # Whether an input is empty decides nothing that the piece computes. A range of sizes may be
    # split there all the same; what depends on data is one range.
    of_data = any(bound.of_data for bound in job.bounds.values())
    without = without_size_assumptions() if of_data else contextlib.nullcontext()
    with without, mode:
        tensors = example_inputs(job, number)
    return Extracted(as_module(job), (*sizes, *tensors), symbols, mode, assumed)


def example_inputs(job: Job, number: Callable[[Any], int | torch.SymInt]) -> list[torch.Tensor]:
    """Make uninitialised tensors like a piece's inputs, which share memory as those do.

    Args:
        job: what the piece is compiled for.
        number: turns a number of the trace into one for these tensors.
    """
    bases: dict[int, torch.Tensor] = {}
    made = []
    examples = [example_of(node) for node in job.piece.inputs]
    anywhere = movable(job.piece.nodes, job.piece.inputs)
    for node, tensor in zip(job.piece.inputs, examples, strict=True):
        shape = [number(size) for size in tensor.shape]
        strides = [number(stride) for stride in tensor.stride()]
        if node in anywhere:
            made.append(
                torch.empty_strided(shape, strides, dtype=tensor.dtype, device=tensor.device)
            )
            continue
        offset = number(tensor.storage_offset())
        storage = storage_of(tensor)
        sharing = [e for e in examples if storage_of(e) == storage]
        if storage not in bases:
            # Large enough for all of them, and a multiple of every dtype's size. How large the
            # storage was in the trace may depend on axes that the piece has nothing to do with.
            count = 16 * sum(map(_reach, sharing))
            bases[storage] = torch.empty(number(count), dtype=tensor.dtype, device=tensor.device)
        base = bases[storage]
        if base.dtype is not tensor.dtype:
            base = base.view(tensor.dtype)
        made.append(base.as_strided(shape, strides, offset))
    return made


def _reach(tensor: torch.Tensor) -> int | torch.SymInt:
    """Bound the elements of a storage that a tensor uses; the bound may be symbolic."""
    spans = (size * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return sum(spans, start=tensor.storage_offset() + 1)


def as_module(job: Job) -> fx.GraphModule:
    """Make a module of a job's piece; it takes sizes of dynamic axes, then the piece's inputs."""
    graph, piece = job.graph, job.piece
    new = fx.Graph()
    tracer = GraphAppendingTracer(new)
    root = torch.nn.Module()
    axes = {
        axis_symbol(axis): Proxy(new.placeholder(f"a{i}"), tracer)
        for i, axis in enumerate(job.bounds)
    }
    copies: dict[fx.Node, fx.Node] = {
        node: new.placeholder(f"arg_{i}") for i, node in enumerate(piece.inputs)
    }
    computed: dict[Any, Any] = {}

    def leaf(item: Any) -> Any:
        import sympy

        if isinstance(item, fx.Node):
            return copies[item]
        if isinstance(item, sympy.Basic):
            if item not in computed:
                made = evaluate(item, axes)
                computed[item] = made.node if isinstance(made, Proxy) else made
            return computed[item]
        return item

    for node in piece.nodes:
        args = map_aggregate(graph.args(node), leaf)
        kwargs = map_aggregate(graph.kwargs(node), leaf)
        if node.op == "get_attr":
            name = f"held_{len(copies)}"
            setattr(root, name, attribute_of(graph.captured.module, str(node.target)))
            copies[node] = new.get_attr(name)
        else:
            copies[node] = new.create_node(node.op, node.target, args, kwargs, node.name)
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "custom"):
            if key in node.meta:
                copies[node].meta[key] = node.meta[key]
    new.output(tuple(copies[node] for node in piece.outputs))
    return lazy_graph_module(root, new)
