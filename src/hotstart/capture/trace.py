"""Capture a model as one graph, with everything around the graph described as data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.capture.arguments import Arguments, example_tensor
from hotstart.capture.captured import Captured
from hotstart.capture.lasting import require_lasting
from hotstart.capture.outputs import describe_outputs
from hotstart.capture.weights import WeightTable
from hotstart.errors import CaptureError
from hotstart.guards.collect import collect
from hotstart.model import Model, ModelIndex
from hotstart.records.artifact import Slot

if TYPE_CHECKING:
    import sympy


def capture(
    index: ModelIndex,
    target: Model,
    arguments: Arguments,
    weights: WeightTable,
    fixed: Mapping[str, int],
    hints: Mapping[str, int],
) -> Captured:
    """Trace a call once.

    Args:
        index: of the model.
        target: what of it is called: itself, one of its methods or submodules.
        arguments: what it is called with.
        weights: the table of tensors that its graphs read.
        fixed: axes to trace at one size; the others are traced symbolically, over all sizes that
            are declared.
        hints: the sizes that decide which path through the code is traced.

    Raises:
        CaptureError: a graph break, data-dependent control flow, or an unsupported construct.
    """
    with _torch.fake_mode():
        tensors = [example_tensor(spec, hints) for spec in arguments.tensors]
    dims = {dim.name: dim for dim in arguments.axes}
    dynamic = [
        (tensor, at, dims[size].min, dims[size].max)
        for tensor, spec in zip(tensors, arguments.tensors, strict=True)
        for at, size in enumerate(spec.shape)
        if isinstance(size, str) and size not in fixed
    ]
    args, kwargs = arguments.call_with(tensors)
    traced = _trace(target, args, kwargs, dynamic)
    settled = _torch.keep_checks(traced.module.graph)
    _refuse_data_dependence(traced, settled)
    _refuse_gradients(traced)
    _refuse_replaced_memory(traced.module.graph)
    _torch.drop_unused_views(traced.module.graph)
    refuse_places(traced.module.graph)
    _refuse_questions(traced.layout_reads)
    return _describe(index, target, traced, arguments, tensors, weights, fixed, settled)


def _trace(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic: list[tuple[torch.Tensor, int, int, int]],
) -> _torch.FullGraph:
    try:
        return _torch.full_graph(model, args, kwargs, dynamic)
    except _torch.NoGraph:
        raise CaptureError(
            "forward contains no tensor operation, so there is nothing to compile. "
            "Call the model as it is."
        ) from None
    except Exception as error:
        failure = _torch.describe_failure(error)
        if failure is None:
            raise
        raise not_one_graph(failure.line, failure.reason, failure.advice) from error


def not_one_graph(line: str, reason: str, advice: str) -> CaptureError:
    """The error that says where and why a model is not one graph, and what to change."""
    parts = [("at", line), ("because", reason), ("do", advice or "write that line another way")]
    listed = "".join(f"\n  {label + ':':9}{text}" for label, text in parts if text)
    return CaptureError(f"the model cannot be captured as one graph.{listed}")


def _refuse_data_dependence(
    traced: _torch.FullGraph, settled: Mapping[sympy.Symbol, sympy.Expr]
) -> None:
    """Raise if a size or number is known only once a tensor's contents are.

    What the graph itself checks is known: see `keep_checks`.
    """
    read = traced.content_symbols()
    for node in traced.module.graph.nodes:
        if (node.op, node.target) == ("call_method", "item"):
            raise _depends_on_contents(_torch.line_of(node))
    refuse_data_dependence(traced.module.graph, read)
    for condition in _torch.conditions(traced.env):
        if _torch.depends_on_contents(condition.expr.xreplace(settled), read):
            raise _depends_on_contents(condition.source)


def refuse_data_dependence(graph: fx.Graph, read: frozenset[sympy.Symbol] = frozenset()) -> None:
    """Raise if a size or number in a graph is known only once a tensor's contents are.

    Args:
        graph: the graph.
        read: symbols that stand for what a tensor holds, besides those that torch calls unbacked.
    """
    for node in graph.nodes:
        if _torch.depends_on_contents(node.meta.get("example_value"), read):
            raise _depends_on_contents(_torch.line_of(node))


def _depends_on_contents(line: str) -> CaptureError:
    return not_one_graph(
        line,
        "a number or a shape depends on the contents of a tensor",
        "keep the number in a tensor, and the shape fixed: torch.where or a mask in place "
        "of indexing by a condition, no .item()",
    )


def _refuse_gradients(traced: _torch.FullGraph) -> None:
    """Raise if forward reads what autograd has left with a tensor, which each backward changes."""
    for _, name, key in traced.reads:
        owner = name if key == "grad" else name.removesuffix(".grad")  # the latter up to torch 2.12
        is_read = key == "grad" or owner != name
        if is_read and isinstance(traced.object_named(owner), torch.Tensor):
            raise CaptureError(
                f"forward reads {traced.plain_name(owner)}.grad, which is another tensor after "
                "each backward. Pass it as an argument, or keep it in a buffer."
            )


def _refuse_replaced_memory(graph: fx.Graph) -> None:
    """Raise if a tensor is given other memory, which no compiler follows."""
    for node in graph.nodes:
        if _torch.replaces_memory(node):
            raise not_one_graph(
                _torch.line_of(node),
                "a tensor is given the memory of another",
                "copy the values with .copy_(), or give the other tensor the name",
            )


def refuse_places(graph: fx.Graph) -> None:
    """Raise if memory of an argument or weight is read at a place counted from its start.

    Where in its memory a tensor begins may differ from call to call.
    """
    given = _memory(graph.find_nodes(op="placeholder"))
    for node in graph.nodes:
        if _torch.names_a_place(node) and given & _memory(node.all_input_nodes):
            raise not_one_graph(
                _torch.line_of(node),
                "as_strided has a storage_offset, and the memory is an argument's or a weight's, "
                "whose own offset in its memory may differ from call to call",
                "leave the offset out, which means the tensor's own, or call as_strided on a clone",
            )


def _refuse_questions(asked: _torch.LayoutReads) -> None:
    """Raise if code asks which tensor another is a view of, which differs from call to call."""
    for read in asked.reads:
        if read.asked == "base":
            raise not_one_graph(
                read.line,
                "forward reads _base, and whether an argument is a view may differ from call to "
                "call",
                "take the question out of forward, or pass its answer as an argument",
            )


def _memory(nodes: Iterable[fx.Node]) -> set[int]:
    examples = (node.meta.get("example_value") for node in nodes)
    return {_torch.storage_of(e) for e in examples if isinstance(e, torch.Tensor)}


def _describe(
    index: ModelIndex,
    target: Model,
    traced: _torch.FullGraph,
    arguments: Arguments,
    tensors: list[torch.Tensor],
    weights: WeightTable,
    fixed: Mapping[str, int],
    settled: Mapping[sympy.Symbol, sympy.Expr],
) -> Captured:
    graph = traced.module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    values = _graph_inputs(traced, arguments.call_with(tensors))
    numbers = {id(tensor): index for index, tensor in enumerate(tensors)}
    symbols = {
        symbol: _torch.axis_symbol(axis)
        for symbol, (tensor, dim) in traced.symbol_sources()
        if id(tensor) in numbers
        and isinstance(axis := arguments.tensors[numbers[id(tensor)]].shape[dim], str)
    }
    inputs: list[Slot] = []
    for node, value in zip(placeholders, values, strict=True):
        if isinstance(value, torch.Tensor):
            number = numbers.get(id(value))
            if number is None:
                inputs.append(Slot("weight", weights.slot(value, traced.name_of(node))))
            else:
                inputs.append(Slot("arg", number))
        else:
            found = traced.size_source(node)
            number = None if found is None else numbers.get(id(found[0]))
            if found is None or number is None:
                raise CaptureError(
                    f"forward computes {node.name} from Python numbers that change from call to "
                    "call. Pass them as tensors, or keep them constant."
                )
            axis = arguments.tensors[number].shape[found[1]]
            assert isinstance(axis, str)
            inputs.append(Slot("size", expr=axis))
    _name_modules(traced)
    read = collect(index, target, traced)
    (output,) = (node for node in graph.nodes if node.op == "output")
    captured = Captured(
        graph=graph,
        module=traced.module,
        inputs=tuple(inputs),
        symbols=symbols,
        outputs=Slot("out", 0),
        updates=(),
        conditions=tuple(
            _torch.Condition(c.expr.xreplace({**symbols, **settled}), c.source)
            for c in _torch.conditions(traced.env)
        ),
        fixed=dict(fixed),
        modes=_modes(index, traced),
        modules=read.modules,
        codes=read.codes,
        loose=read.loose,
        seen=read.seen,
        layout_reads=traced.layout_reads,
        read_arguments={
            node: numbers.get(id(traced.object_named(step.source)), -1)
            for node, step in traced.layout_reads.steps.items()
            if step.source
        },
    )
    returned = [captured.size_source_of(node) for node in output.args[0]]
    written = _written_inputs(placeholders, captured.inputs, output.args[0])
    described = describe_outputs(index, traced, returned, written, arguments, fixed, weights)
    output.args = ((*output.args[0], *described.sizes),)
    captured = replace(
        captured,
        outputs=described.result,
        updates=described.updates,
        changes=described.changes,
    )
    require_lasting(index, [captured])
    return captured


def _written_inputs(
    placeholders: list[fx.Node], inputs: tuple[Slot, ...], outputs: Any
) -> dict[int, Slot]:
    """Outputs that are an input after it was written to, by number."""
    slots = {
        id(node.meta["example_value"]): slot
        for node, slot in zip(placeholders, inputs, strict=True)
        if slot.kind != "size"
    }
    examples = {
        index: id(node.meta.get("example_value"))
        for index, node in enumerate(outputs)
        if isinstance(node, fx.Node)
    }
    return {index: slots[example] for index, example in examples.items() if example in slots}


def _modes(index: ModelIndex, traced: _torch.FullGraph) -> tuple[tuple[str, bool], ...]:
    """Path and mode of the modules whose `training` flag was read."""
    read = map(traced.object_named, traced.modes)
    return tuple((path, m.training) for m in read if (path := index.path_of(m)) is not None)


def _name_modules(traced: _torch.FullGraph) -> None:
    """Give modules in the nodes' `nn_module_stack` the names they have in the model."""
    for node in traced.module.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            node.meta["nn_module_stack"] = {
                key: (traced.plain_name(path), cls) for key, (path, cls) in stack.items()
            }


def _graph_inputs(
    traced: _torch.FullGraph, call: tuple[tuple[Any, ...], dict[str, Any]]
) -> tuple[Any, ...]:
    """What the graph is called with, in the order of its placeholders."""
    received: tuple[Any, ...] = ()

    class _Received(Exception):
        pass

    def graph(*inputs: Any) -> Any:
        nonlocal received
        received = inputs
        raise _Received

    with contextlib.suppress(_Received):
        traced.replay(graph, *call)
    return received
