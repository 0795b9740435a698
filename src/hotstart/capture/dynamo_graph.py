"""Capture what Dynamo hands to a backend: its graph is traced, its guards check the calls.

It remains to describe the inputs. Every tensor is an argument, parameters too, since Dynamo passes
them in every call. Every symbol is an axis, and has to be found in the inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.dynamo.full_graph import input_name, plain_name
from hotstart._torch.dynamo.graph_inputs import (
    bounds_of,
    guard_on,
    hint_of,
    is_float,
    make_constant,
    symbols_in,
    traced_environment,
)
from hotstart._torch.graphs.symbols import axis_symbol, conditions, expression
from hotstart._torch.graphs.writes import count_writes, was_mutated
from hotstart.capture.captured import Captured
from hotstart.capture.plain import require_plain
from hotstart.capture.prepare import prepare
from hotstart.capture.refusals import refuse_collectives, refuse_places, refuse_unbacked
from hotstart.dtypes import name_of
from hotstart.errors import CaptureError
from hotstart.records.contract import TensorSpec
from hotstart.records.dims import Dim
from hotstart.records.nested import Const, Seq, Slot, Tree

if TYPE_CHECKING:
    import sympy
    from torch.fx.experimental.symbolic_shapes import ShapeEnv


@dataclass(frozen=True)
class FlatGraph:
    """A graph of Dynamo's, captured.

    Attributes:
        captured: the graph; it returns a tuple.
        tensors: what each tensor argument is, by slot.
        axes: the sizes, strides, offsets and integers that differ from call to call.
        hints: the value each axis has in the call that was traced.
        inputs: a name for each input of the graph, in order.
        arguments: the names of those that are tensors, by slot.
        sizes: for each axis a Python expression over those names.
    """

    captured: Captured
    tensors: tuple[TensorSpec, ...]
    axes: tuple[Dim, ...]
    hints: Mapping[str, int]
    inputs: tuple[str, ...]
    arguments: tuple[str, ...]
    sizes: tuple[str, ...]


def capture_graph(module: fx.GraphModule, learned: Sequence[sympy.Basic]) -> FlatGraph:
    """Describe a graph of Dynamo's, while Dynamo waits for its backend.

    Args:
        module: the graph module that the backend was given.
        learned: conditions that were evaluated in Dynamo's shape environment since the trace.

    Raises:
        CaptureError: the graph was not made by Dynamo, is for training, or has inputs that are no
            plain tensors and numbers.
    """
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    env = _environment_of(placeholders)
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    _refuse(module, placeholders, output)
    values = [node.meta.get("example_value") for node in module.graph.nodes]
    symbols = _symbols(env, values)
    symbols, sizes = _found_in_inputs(env, symbols, placeholders)
    names = tuple(f"input_{number}" for number in range(len(placeholders)))
    tensors = [n for n, node in zip(names, placeholders, strict=True) if _is_tensor(node)]
    axes = {symbol: axis_symbol(str(symbol)) for symbol in symbols}
    known = [condition.expr for condition in conditions(env)]
    model = _module_of_model(module.graph)
    prepare(module.graph, partial(plain_name, self_name=model))
    captured = Captured(
        graph=module.graph,
        module=module,
        inputs=tuple(_slots(placeholders)),
        symbols=axes,
        outputs=_outputs(output),
        updates=(),
        conditions=(),
        fixed={},
        modes=(),
        guarded=tuple(
            expr.xreplace(axes)
            for expr in dict.fromkeys([*known, *learned])
            if expr.free_symbols and expr.free_symbols <= set(symbols)
        ),
    )
    return FlatGraph(
        captured=captured,
        tensors=tuple(_spec(node) for node in placeholders if _is_tensor(node)),
        axes=tuple(_axis(env, symbol) for symbol in symbols),
        hints={str(symbol): hint_of(env, symbol) for symbol in symbols},
        inputs=names,
        arguments=tuple(tensors),
        sizes=tuple(sizes[symbol] for symbol in symbols),
    )


def _environment_of(placeholders: Sequence[fx.Node]) -> ShapeEnv:
    """The shape environment in which Dynamo traced a graph with these inputs."""
    env = traced_environment()
    if env is None or any("example_value" not in node.meta for node in placeholders):
        raise CaptureError(
            "expected a graph from torch.compile, found one without a trace under way. Use "
            'torch.compile(model, backend="hotstart"), or hotstart.compile(model, ...).'
        )
    return env


def _refuse(module: fx.GraphModule, placeholders: Sequence[fx.Node], output: fx.Node) -> None:
    """Refuse graphs for training, and those that no program does."""
    for node in placeholders:
        _refuse_odd(node)
    count_writes(module.graph)
    _refuse_training(placeholders, output)
    refuse_unbacked(module.graph)
    refuse_places(module.graph)
    refuse_collectives(module)


# --- inputs and outputs ---------------------------------------------------------------------------


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta["example_value"], torch.Tensor)


def _refuse_odd(node: fx.Node) -> None:
    """Raise if an input is something that pieces cannot be given."""
    value = node.meta["example_value"]
    if isinstance(value, torch.Tensor):
        require_plain(f"input {node.name}", value)
    elif not isinstance(value, int | torch.SymInt):
        raise CaptureError(
            f"input {node.name}: got a {type(value).__qualname__}, takes a plain torch.Tensor or "
            "an integer. Leave what takes it out with torch.compiler.disable."
        )


def _refuse_training(placeholders: Sequence[fx.Node], output: fx.Node) -> None:
    """Raise if autograd would have to go through the graph."""
    if not torch.is_grad_enabled():
        return
    made = [n for n in output.all_input_nodes if n.op != "placeholder" and _requires_grad(n)]
    written = [
        node
        for node in placeholders
        if _requires_grad(node)
        and not node.meta["example_value"].is_leaf
        and was_mutated(node.meta["example_value"])
    ]
    if made or written:
        raise CaptureError(
            "hotstart compiles for inference, and results of this graph require grad "
            f"({', '.join(node.name for node in (*made, *written)[:3])}). Call the model under "
            "torch.no_grad() or torch.inference_mode(), or call model.requires_grad_(False)."
        )


def _requires_grad(node: fx.Node) -> bool:
    value = node.meta.get("example_value")
    return isinstance(value, torch.Tensor) and value.requires_grad


def _slots(placeholders: Iterable[fx.Node]) -> Iterator[Slot]:
    slot = 0
    for node in placeholders:
        if _is_tensor(node):
            yield Slot("arg", slot)
            slot += 1
        else:
            yield Slot("size", expr=str(node.meta["example_value"]))


def _spec(node: fx.Node) -> TensorSpec:
    value = node.meta["example_value"]
    return TensorSpec(
        path=input_name(node),
        dtype=name_of(value.dtype),
        device=str(value.device),
        shape=tuple(size if isinstance(size, int) else str(size) for size in value.shape),
        dim_order=tuple(range(value.ndim)),  # of no meaning here: Dynamo guards on strides
    )


def _outputs(output: fx.Node) -> Tree:
    """The tuple of what the graph returns."""
    items: list[Tree] = []
    for index, item in enumerate(output.args[0]):  # type: ignore[arg-type]
        value = item.meta["example_value"] if isinstance(item, fx.Node) else item
        if isinstance(value, torch.Tensor):
            items.append(Slot("out", index))
        elif isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            items.append(Slot("size", index))
        else:
            items.append(Const(value))
    return Seq(tuple, tuple(items))


def _module_of_model(graph: fx.Graph) -> str | None:
    """The variable that holds the model in Dynamo's names; None if the graph is part of more."""
    stacks = (node.meta.get("nn_module_stack") or {} for node in graph.nodes)
    paths = (path for stack in stacks for path, _ in stack.values())
    names = {root and root[1] for root in (re.match(r"L\['(\w+)'\]", path) for path in paths)}
    return names.pop() if len(names) == 1 else None


def writable(found: FlatGraph, inputs: Sequence[Any]) -> tuple[list[int], frozenset[int]]:
    """List the slots of tensors that must not overlap, if the graph writes to any tensor.

    Parameters that are only read are left out: they are many, and never views of arguments.

    Returns:
        Slots, and the positions among them of those that are written to.
    """
    placeholders = [node for node in found.captured.graph.nodes if node.op == "placeholder"]
    pairs = [(n, i) for n, i in zip(placeholders, inputs, strict=True) if _is_tensor(n)]
    written = [was_mutated(node.meta["example_value"]) for node, _ in pairs]
    slots = [
        slot
        for slot, (_, tensor) in enumerate(pairs)
        if written[slot] or not isinstance(tensor, torch.nn.Parameter)
    ]
    if not any(written) or len(slots) < 2:
        return [], frozenset()
    return slots, frozenset(at for at, slot in enumerate(slots) if written[slot])


# --- axes -----------------------------------------------------------------------------------------


def _symbols(env: ShapeEnv, values: Iterable[Any]) -> list[sympy.Symbol]:
    """The symbols that a graph depends on, each of them a natural number above 1 in this call.

    A symbol that may be negative is guarded not to be. One that is 0, 1 or negative now is guarded
    to be what it is: Dynamo specialises sizes in this way, but not strides and integers.
    """
    import sympy

    values = list(values)
    floats = [s for s in _free(values) if is_float(s)]
    if floats:
        make_constant(floats)
    for symbol in _free(values):
        hint = hint_of(env, symbol)
        if hint < 2:
            guard_on(env, sympy.Eq(symbol, hint))
        elif bounds_of(env, symbol)[0] < 0:
            guard_on(env, symbol >= 0)
    return _free(values)


def _free(values: Iterable[Any]) -> list[sympy.Symbol]:
    return sorted({symbol for value in values for symbol in symbols_in(value)}, key=str)


def _axis(env: ShapeEnv, symbol: sympy.Symbol) -> Dim:
    low, high = bounds_of(env, symbol)
    return Dim(str(symbol), min=max(low, 0), max=high)


def _found_in_inputs(
    env: ShapeEnv, symbols: Sequence[sympy.Symbol], placeholders: Sequence[fx.Node]
) -> tuple[list[sympy.Symbol], dict[sympy.Symbol, str]]:
    """Map symbols to source that reads them from inputs; symbols without one become constants."""
    import sympy

    found: dict[sympy.Symbol, str] = {}
    for expr, source in _told(placeholders):
        if len(expr.free_symbols) == 1:
            (symbol,) = expr.free_symbols
            solution = _solved(expr, symbol, source)
            if solution is not None and len(solution) < len(found.get(symbol, solution + " ")):
                found[symbol] = solution
    for symbol in symbols:
        if symbol not in found:
            guard_on(env, sympy.Eq(symbol, hint_of(env, symbol)))
    return [symbol for symbol in symbols if symbol in found], found


def _told(placeholders: Sequence[fx.Node]) -> Iterator[tuple[sympy.Expr, str]]:
    """Yield every number that an input has, as an expression and as source that reads it."""
    for number, node in enumerate(placeholders):
        value = node.meta["example_value"]
        name = f"input_{number}"
        if not isinstance(value, torch.Tensor):
            yield expression(value), name
            continue
        for dim, size in enumerate(value.shape):
            yield expression(size), f"{name}.shape[{dim}]"
        for dim, stride in enumerate(value.stride()):
            yield expression(stride), f"{name}.stride({dim})"
        yield expression(value.storage_offset()), f"{name}.storage_offset()"


def _solved(expr: sympy.Expr, symbol: sympy.Symbol, source: str) -> str | None:
    """Solve `expr` = `source` for `symbol`; None if that is not linear."""
    if expr == symbol:
        return source
    slope = expr.coeff(symbol)
    rest = expr - slope * symbol
    if not slope.is_Integer or slope == 0 or not rest.expand().is_Integer:
        return None
    return f"({source} - {rest.expand()}) // {slope}"
