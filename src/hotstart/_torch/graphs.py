"""Nodes and values of captured graphs."""

from __future__ import annotations

import inspect
import math
import operator
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.lines import user_frame, user_line
from hotstart._torch.symbols import expression, python_source

if TYPE_CHECKING:
    import sympy


def has_no_effect(node: fx.Node) -> bool:
    """Whether a node only concerns logging or autograd, which a program does not do.

    Dynamo keeps `torch._C._log_api_usage_once` and, for `torch.no_grad()` in forward,
    `torch._C._set_grad_enabled` in its graphs. The latter counts where forward itself
    differentiates, as `torch.func.grad` does.
    """
    if node.op != "call_function" or node.target is not torch._C._set_grad_enabled:
        return node.target is torch._C._log_api_usage_once
    return not differentiates(node.graph)


def differentiates(graph: fx.Graph) -> bool:
    """Whether a graph computes gradients."""
    return bool(
        graph.find_nodes(op="call_function", target=torch._C._functorch._grad_increment_nesting)
    )


def sets_grad_mode(node: fx.Node) -> bool:
    """Whether a node turns autograd on or off."""
    return node.target is torch._C._set_grad_enabled


_OPENS = frozenset(
    {
        "_enter_autocast",
        "_enter_inference_mode",
        "_vmap_increment_nesting",
        "_grad_increment_nesting",
        "_jvp_increment_nesting",
    }
)
_CLOSES = frozenset(
    {
        "_exit_autocast",
        "_exit_inference_mode",
        "_vmap_decrement_nesting",
        "_grad_decrement_nesting",
        "_jvp_decrement_nesting",
    }
)


def region_change(node: fx.Node) -> int:
    """+1 for a node that opens a region which must be closed in the same piece, -1 for its end.

    Dynamo turns `with` blocks and functional transforms into calls of private functions, which
    have kept their names while they moved between modules.
    """
    if node.op != "call_function":
        return 0
    name = getattr(node.target, "__name__", "")
    return (name in _OPENS) - (name in _CLOSES)


def switches_attention(node: fx.Node) -> bool:
    """Whether a node sets which attention kernels may be used.

    `torch.nn.attention.sdpa_kernel` becomes two of them: one that sets and one that sets back.
    """
    return getattr(node.target, "__name__", "") == "_sdpa_kernel"


def replaces_memory(node: fx.Node) -> bool:
    """Tell whether a node gives a tensor the memory of another: `x.set_(y)`, `x.data = y`.

    The latter is an operator of its own from 2.14 on.
    """
    name = getattr(node.target, "__name__", node.target)
    return name in ("set_", "shallow_copy_data_")


def is_drawn_by_python(placeholder: fx.Node) -> bool:
    """Tell whether an input is a number that `random` draws anew in each call.

    `torch._dynamo.source.RandomValueSource`; Dynamo makes such inputs from 2.14 on.
    """
    return type(getattr(placeholder, "_dynamo_source", None)).__name__ == "RandomValueSource"


_VIEWS_BY_ATTRIBUTE = {"mT": "mT", "numpy_T": "T", "matrix_H": "H", "mH": "mH"}
"""Operators of views that attributes give, which Dynamo takes into its graphs from 2.14 on."""


def view_by_attribute(node: fx.Node) -> str | None:
    """The attribute of a tensor that a node reads, such as `mT`; None for other nodes.

    Dynamo calls `getattr` or `torch._C._autograd._get_data_attr` (2.11 to 2.15), or an operator.
    """
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
    if name == "getattr" and len(node.args) == 2:
        return str(node.args[1])
    if name == "_get_data_attr":
        return "data"
    is_operator = str(node.target).startswith("aten.")
    return _VIEWS_BY_ATTRIBUTE.get(name) if is_operator else None


def drop_unused_views(graph: fx.Graph) -> None:
    """Erase views by attribute, such as `x.mT`, that nothing in a graph reads.

    Dynamo leaves them in its graphs (2.11 to 2.15), and takes them anew in its bytecode.
    """
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not node.users and view_by_attribute(node) is not None:
            graph.erase_node(node)


def asserts_contents(node: fx.Node) -> bool:
    """Whether a node asserts something about the contents of a tensor, and does nothing else."""
    return str(getattr(node.target, "__name__", "")).startswith("_assert_async")


_OFFSET_AT = {"as_strided": 3, "as_strided_": 3, "as_strided_copy": 3, "as_strided_scatter": 4}


def names_a_place(node: fx.Node) -> bool:
    """Whether a node counts elements from the start of a tensor's memory, not from the tensor's."""
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
    at = _OFFSET_AT.get(name, len(node.args))
    offset = node.args[at] if at < len(node.args) else node.kwargs.get("storage_offset")
    return name in _OFFSET_AT and offset is not None


def unbacked_in(value: Any) -> set[sympy.Symbol]:
    """The symbols of numbers that depend on contents of tensors, in a number or a tensor's shape.

    Of anything else than a number, a tensor or an expression there are none.
    """
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return set(free_unbacked_symbols(value)) if _has_symbols(value) else set()


def mentions(value: Any, symbols: frozenset[sympy.Symbol]) -> bool:
    """Tell whether a number, a tensor's shape or an expression mentions any of some symbols."""
    from torch.fx.experimental.symbolic_shapes import free_symbols

    return _has_symbols(value) and bool(symbols & free_symbols(value))


def _has_symbols(value: Any) -> bool:
    import sympy

    known = torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool | sympy.Basic
    return isinstance(value, known)


def complete_examples(graph: fx.Graph) -> None:
    """Give elements of tensors that `tolist` reads their fake values, which Dynamo leaves out."""
    for node in graph.find_nodes(op="call_function", target=operator.getitem):
        base, index = node.args
        if "example_value" not in node.meta and isinstance(base, fx.Node):
            source = base.meta.get("example_value")
            if isinstance(source, torch.Tensor) and isinstance(index, int):
                with torch.no_grad():
                    node.meta["example_value"] = source[index]


def keep_checks(graph: fx.Graph) -> dict[sympy.Symbol, sympy.Expr]:
    """Have a graph check with tensor operations what `torch._check` asks of tensors' contents.

    Dynamo reads such a tensor with `.item()`, goes on with the integer or boolean that the check
    says it is, and asserts that on the number. Numbers are no nodes of a piece and would be left
    out with the check, so the tensor is asserted in place of the number.

    Returns:
        The symbols of the numbers that were read, with what the graph now asserts them to be.
    """
    import sympy

    settled: dict[sympy.Symbol, sympy.Expr] = {}
    for node in list(graph.nodes):
        if node.op == "call_method" and node.target == "item":
            number = expression(node.meta["example_value"])
            if number == sympy.true or number.is_Integer:
                settled |= _assert_item(graph, node, plain_number(number))
        elif node.target is torch.ops.aten._assert_scalar.default:
            checked = node.args[0]
            known = checked.meta["example_value"] if isinstance(checked, fx.Node) else checked
            if expression(known) == sympy.true:
                graph.erase_node(node)
    return settled


def _assert_item(graph: fx.Graph, item: fx.Node, number: float) -> dict[sympy.Symbol, sympy.Expr]:
    """Put an assertion of a tensor's one element in place of the node that reads it."""
    tensor = item.args[0]
    assert isinstance(tensor, fx.Node)
    where = without_folders(line_of(item))
    with graph.inserting_before(item):
        equal = graph.call_function(torch.eq, (tensor, number))
        equal.meta = {**item.meta, "example_value": tensor.meta["example_value"] == number}
        asserted = (equal, f"expected {number}, as the model says: {where}")
        check = graph.call_function(torch.ops.aten._assert_async.msg, asserted)
        check.meta = {**item.meta, "example_value": None}
    # `expr` has the number in it already; what was read is in `_expr` (2.11 to 2.15).
    read = item.meta["example_value"].node
    for user in list(item.users):
        user.args = fx.node.map_arg(user.args, lambda n: number if n is item else n)
        user.kwargs = fx.node.map_arg(user.kwargs, lambda n: number if n is item else n)
    graph.erase_node(item)
    return {symbol: read.shape_env.replace(symbol) for symbol in read._expr.free_symbols}


def without_folders(line: str) -> str:
    """Leave out of `line_of` where a library is installed, which must not get into a program."""
    return re.sub(r"^.*?/(?=[^/]+:\d+ in )", "", line)


def line_of(node: fx.Node) -> str:
    """The user's file, line and source that a node was traced from; may be empty."""
    return user_line(_stack_of(node))


def frame_of(node: fx.Node) -> traceback.FrameSummary | None:
    """The same as a frame, if there is one."""
    frame: traceback.FrameSummary | None = user_frame(_stack_of(node))
    return frame


def _stack_of(node: fx.Node) -> list[traceback.FrameSummary]:
    frames = re.findall(
        r'File "(.+?)", line (\d+), in (\S+)\n\s*(.*)', node.meta.get("stack_trace") or ""
    )
    return [traceback.FrameSummary(f, int(n), name, line=line) for f, n, name, line in frames]


def plain_number(expr: sympy.Basic) -> int | float | bool:
    """The Python number a constant expression is."""
    import sympy

    if expr in (sympy.true, sympy.false):
        return bool(expr)
    return int(expr) if expr.is_integer else float(expr)


def evaluate(expr: sympy.Basic, values: Mapping[sympy.Symbol, Any]) -> Any:
    """Compute an expression with proxies or sizes in place of its symbols."""
    names = {str(symbol): value for symbol, value in values.items()}
    functions = {"max": torch.sym_max, "min": torch.sym_min, "float": torch.sym_float}
    return eval(python_source(expr), {"math": _TracedMath(), "torch": torch, **functions, **names})


class _TracedMath:
    """The `math` module for proxies, of which its functions want a real number."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(torch, f"_sym_{name}", getattr(math, name))

        def call(*args: Any) -> Any:
            proxy = next((arg for arg in args if isinstance(arg, fx.Proxy)), None)
            if proxy is None:
                return function(*args)
            return proxy.tracer.create_proxy("call_function", function, args, {})

        return call


def storage_of(tensor: torch.Tensor) -> int:
    """A number that two tensors share exactly if they share memory."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    address: int = tensor.untyped_storage()._cdata
    return address


def was_mutated(tensor: torch.Tensor) -> bool:
    """Whether a fake tensor, or a view of it, was written to while tracing."""
    return not tensor.is_inference() and tensor._version > 0


def count_writes(graph: fx.Graph) -> None:
    """Count what operators say they write to as written, in the versions of its fake tensors.

    The fake kernel of an operator of somebody's own need not write, nor say so by a version. That
    of batch normalisation does neither, and its schema does not say that it writes. And what
    `.data` gives has a version of its own, though its memory is that of the tensor.
    """
    for node in graph.nodes:
        for value in (*_written_arguments(node), *_learnt_statistics(node)):
            for written in _nodes_in(value):
                tensor = written.meta.get("example_value")
                if isinstance(tensor, torch.Tensor) and not tensor.is_inference():
                    torch.autograd.graph.increment_version(tensor)
    _count_writes_through_data(graph)


def _count_writes_through_data(graph: fx.Graph) -> None:
    """Count writes to memory of inputs that the version of none of them tells of."""
    written: set[int] = set()
    inputs: dict[int, list[torch.Tensor]] = {}
    for node in graph.nodes:
        tensor = node.meta.get("example_value")
        if not isinstance(tensor, torch.Tensor) or tensor.is_inference():
            continue
        if node.op == "placeholder":
            inputs.setdefault(storage_of(tensor), []).append(tensor)
        elif was_mutated(tensor):
            written.add(storage_of(tensor))
    for storage in written & inputs.keys():
        if not any(map(was_mutated, inputs[storage])):
            torch.autograd.graph.increment_version(inputs[storage])


def _written_arguments(node: fx.Node) -> Iterator[fx.node.Argument]:
    """Yield the arguments of a node that its operator writes to, by the schema of any overload."""
    target = node.target
    overloads: list[Any] = [target] if isinstance(target, torch._ops.OpOverload) else []
    if isinstance(target, torch._ops.OpOverloadPacket):
        overloads = [getattr(target, name) for name in target.overloads()]
    for overload in overloads:
        for position, argument in enumerate(overload._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            if argument.name in node.kwargs:
                yield node.kwargs[argument.name]
            elif not argument.kwarg_only and position < len(node.args):
                yield node.args[position]


_NORMALISATIONS = {
    torch.nn.functional.batch_norm: "training",
    torch.nn.functional.instance_norm: "use_input_stats",
}
"""Functions that write running statistics, with the argument that says so."""


def _learnt_statistics(node: fx.Node) -> Iterator[fx.node.Argument]:
    """Yield the running statistics that a normalisation in training writes to."""
    if node.op != "call_function" or node.target not in _NORMALISATIONS:
        return
    signature = inspect.signature(node.target)
    bound = signature.bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    if bound.arguments[_NORMALISATIONS[node.target]]:
        yield bound.arguments["running_mean"]
        yield bound.arguments["running_var"]


def _nodes_in(value: fx.node.Argument) -> list[fx.Node]:
    """List the nodes in an argument, which may be a list of them."""
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    return found


def like_in_format(tensor: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    """Make a fake tensor like another one, on memory of its own, in a memory format."""
    order = list(range(tensor.ndim))
    if memory_format is not torch.contiguous_format:
        order = [0, *order[2:], 1]
    strides: list[int | torch.SymInt] = [1] * tensor.ndim
    for outer, inner in zip(order[-2::-1], order[:0:-1], strict=True):
        strides[outer] = strides[inner] * tensor.shape[inner]
    with torch.no_grad():
        return tensor.new_empty_strided(tensor.shape, strides)


def attribute_of(module: fx.GraphModule, target: str) -> Any:
    """What a `get_attr` node refers to."""
    found: Any = module
    for part in target.split("."):
        found = getattr(found, part)
    return found


def lazy_graph_module(root: torch.nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A graph module whose Python code is generated only if somebody asks for it.

    `torch.fx._lazy_graph_module` is what torch's own compile passes use for the same purpose.
    """
    from torch.fx._lazy_graph_module import _LazyGraphModule

    return _LazyGraphModule(root, graph)
