"""Nodes and values of captured graphs."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.dynamo import user_line
from hotstart._torch.symbols import python_source

if TYPE_CHECKING:
    import sympy


def has_no_effect(node: fx.Node) -> bool:
    """Whether a node only concerns logging or autograd, which a program does not do.

    Dynamo keeps `torch._C._log_api_usage_once` and, for `torch.no_grad()` in forward,
    `torch._C._set_grad_enabled` in its graphs.
    """
    return node.op == "call_function" and node.target in (
        torch._C._log_api_usage_once,
        torch._C._set_grad_enabled,
    )


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


def depends_on_contents(value: Any) -> bool:
    """Whether a number, or a size of a tensor, is known only once a tensor's contents are."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    numbers = torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool
    return isinstance(value, numbers) and bool(free_unbacked_symbols(value))


def line_of(node: fx.Node) -> str:
    """The user's file, line and source that a node was traced from; may be empty."""
    frames = re.findall(
        r'File "(.+?)", line (\d+), in (\S+)\n\s*(.*)', node.meta.get("stack_trace") or ""
    )
    return user_line(
        [traceback.FrameSummary(f, int(n), name, line=line) for f, n, name, line in frames]
    )


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
    scope = {"math": math, "torch": torch, **functions, **names}
    return eval(python_source(expr), scope)


def storage_of(tensor: torch.Tensor) -> int:
    """A number that two tensors share exactly if they share memory."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    address: int = tensor.untyped_storage()._cdata
    return address


def was_mutated(tensor: torch.Tensor) -> bool:
    """Whether a fake tensor, or a view of it, was written to while tracing."""
    return not tensor.is_inference() and tensor._version > 0


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
