"""Capture a model as one graph, with everything around the graph described as data."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.capture.arguments import Arguments
from hotstart.capture.outputs import BufferUpdate, describe_outputs
from hotstart.capture.proof import advise, counterexample
from hotstart.capture.weights import WeightTable
from hotstart.errors import CaptureError, RangeError
from hotstart.ir import Slot, TensorSpec, Tree
from hotstart.runtime.layout import dense_strides
from hotstart.shapes import Dim, Interval, Variant
from hotstart.tensors import Model

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Captured:
    """One full graph of a model.

    Attributes:
        graph: the graph; its placeholders correspond to `inputs`.
        inputs: for each placeholder, the argument, weight or axis (`Slot("size", expr=axis)`).
        symbols: the axis each symbol of the graph's shapes stands for.
        outputs: what a call returns.
        updates: attributes of the model's modules that a call replaces.
        conditions: everything that was assumed about sizes, over axis symbols.
        fixed: axes that were traced at one size, with that size.
    """

    graph: fx.Graph = field(repr=False)
    module: fx.GraphModule = field(repr=False)
    inputs: tuple[Slot, ...]
    symbols: Mapping[sympy.Symbol, sympy.Symbol]
    outputs: Tree
    updates: tuple[BufferUpdate, ...]
    conditions: tuple[_torch.Condition, ...]
    fixed: Mapping[str, int]

    def expression(self, size: int | torch.SymInt) -> sympy.Expr:
        """A size of the graph as an expression over axis symbols."""
        return _torch.expression(size).xreplace(dict(self.symbols))

    def size_source_of(self, node: object) -> str | None:
        """Python source, over axis names, of an integer that the graph returns; None for a tensor."""
        value = node.meta["example_value"] if isinstance(node, fx.Node) else node
        if isinstance(value, torch.Tensor):
            return None
        if isinstance(value, int | torch.SymInt):
            return _torch.python_source(self.expression(value))
        raise CaptureError(
            f"forward returns {node}, a number computed from tensor sizes that is not an integer. "
            "Return the sizes and compute it outside."
        )

    def violation(self, variant: Variant) -> tuple[_torch.Condition, dict[str, int]] | None:
        """A condition that does not hold throughout a variant, with sizes it fails for."""
        box = variant.box()
        for axis, size in self.fixed.items():
            if box[axis] != Interval(size, size):
                return _torch.Condition(_torch.equals(axis, size), ""), {axis: box[axis].lo}
        by_symbol = {_torch.axis_symbol(axis): interval for axis, interval in box.items()}
        for condition in self.conditions:
            found = counterexample(condition.expr, by_symbol)
            if found is not None:
                return condition, {str(s): size for s, size in found.items()}
        return None


def capture(
    model: Model, arguments: Arguments, variant: Variant, weights: WeightTable
) -> Captured:
    """Trace `model` so that the graph serves `variant`, and other variants where that is proven.

    Axes for which the variant is one size are traced at that size; the others symbolically over
    all sizes that are declared, with a hint from the variant.

    Raises:
        CaptureError: a graph break, data-dependent control flow, or an unsupported construct.
        RangeError: a size within the variant is not served by the graph.
    """
    fixed = {axis: choice for axis, choice in variant.choices if isinstance(choice, int)}
    hints = {
        axis: hint_for(interval, arguments.example_sizes[axis])
        for axis, interval in variant.box().items()
    }
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
    traced = _trace(model, args, kwargs, dynamic)
    captured = _describe(model, traced, arguments, tensors, weights, fixed)
    _require(captured, variant, dims)
    return captured


def hint_for(interval: Interval, example: int) -> int:
    """A size to trace with: the example's if it lies in the interval and is not a special size."""
    if example in interval and example > 1:
        return example
    return min(interval.hi, max(interval.lo, 2))


def example_tensor(spec: TensorSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    """An uninitialised tensor that fits a specification, in its compiled layout."""
    shape = [sizes[s] if isinstance(s, str) else s for s in spec.shape]
    strides = dense_strides(shape, spec.dim_order)
    return torch.empty_strided(shape, strides, dtype=spec.dtype, device=spec.device)


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
        at = f"\n  at: {failure.line}" if failure.line else ""
        raise CaptureError(
            f"the model cannot be captured as one graph.{at}\n  because: {failure.reason}"
        ) from error


def _describe(
    model: Model,
    traced: _torch.FullGraph,
    arguments: Arguments,
    tensors: list[torch.Tensor],
    weights: WeightTable,
    fixed: Mapping[str, int],
) -> Captured:
    graph = traced.module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    values = _graph_inputs(traced)
    numbers = {id(tensor): index for index, tensor in enumerate(tensors)}
    symbols: dict[sympy.Symbol, sympy.Symbol] = {}
    inputs: list[Slot] = []
    for node, value in zip(placeholders, values, strict=True):
        example = node.meta["example_value"]
        if isinstance(value, torch.Tensor):
            index = numbers.get(id(value))
            if index is None:
                inputs.append(Slot("weight", weights.slot(value, node.name)))
                continue
            inputs.append(Slot("arg", index))
            for size, axis in zip(example.shape, arguments.tensors[index].shape, strict=True):
                if isinstance(axis, str):
                    symbols |= _torch.symbol_of(size, axis)
        else:
            found = traced.size_source(node)
            index = None if found is None else numbers.get(id(found[0]))
            if found is None or index is None:
                raise CaptureError(
                    f"forward computes {node.name} from Python numbers that change from call to "
                    "call. Pass them as tensors, or keep them constant."
                )
            axis = arguments.tensors[index].shape[found[1]]
            assert isinstance(axis, str)
            inputs.append(Slot("size", expr=axis))
            symbols |= _torch.symbol_of(example, axis)
    (output,) = (node for node in graph.nodes if node.op == "output")
    captured = Captured(
        graph=graph,
        module=traced.module,
        inputs=tuple(inputs),
        symbols=symbols,
        outputs=Slot("out", 0),
        updates=(),
        conditions=tuple(
            _torch.Condition(c.expr.xreplace(symbols), c.source)
            for c in _torch.conditions(traced.env)
        ),
        fixed=dict(fixed),
    )
    returned = [captured.size_source_of(node) for node in output.args[0]]
    outputs, updates = describe_outputs(model, traced, returned, tensors, weights)
    return replace(captured, outputs=outputs, updates=updates)


def _graph_inputs(traced: _torch.FullGraph) -> tuple[Any, ...]:
    """What the graph is called with, in the order of its placeholders."""
    received: tuple[Any, ...] = ()

    class _Received(Exception):
        pass

    def graph(*inputs: Any) -> Any:
        nonlocal received
        received = inputs
        raise _Received

    with contextlib.suppress(_Received):
        traced.replay(graph)
    return received


def _require(captured: Captured, variant: Variant, dims: Mapping[str, Dim]) -> None:
    """Raise if a condition of the graph does not hold throughout the variant."""
    found = captured.violation(variant)
    if found is None:
        return
    condition, sizes = found
    axes = ", ".join(sizes)
    if len(sizes) != 1:
        advice = f"declare ranges in which it holds; it does not for {sizes}"
    else:
        (axis,) = sizes
        interval = variant.box()[axis]
        advice = advise(axis, condition.expr, interval)
    raise RangeError(
        axis=axes,
        declared=" and ".join(str(dims[axis]) for axis in sizes),
        condition=_torch.python_source(condition.expr),
        source=condition.source,
        advice=advice,
    )
