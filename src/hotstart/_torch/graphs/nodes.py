"""Questions about nodes of captured graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def has_no_effect(node: fx.Node) -> bool:
    """Tell whether a node only concerns logging or autograd, which a program does not do.

    Dynamo keeps `torch._C._log_api_usage_once` and, for `torch.no_grad()` in forward,
    `torch._C._set_grad_enabled` in its graphs. The latter counts where forward itself
    differentiates, as `torch.func.grad` does.
    """
    if node.op != "call_function" or node.target is not torch._C._set_grad_enabled:
        return node.target is torch._C._log_api_usage_once
    return not differentiates(node.graph)


def differentiates(graph: fx.Graph) -> bool:
    """Tell whether a graph computes gradients."""
    return bool(
        graph.find_nodes(op="call_function", target=torch._C._functorch._grad_increment_nesting)
    )


def short_name(node: fx.Node) -> str:
    """Name the function, operator or method that a node calls, without namespace and overload."""
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def came_with_torch(node: fx.Node) -> bool:
    """Tell whether a node calls a function, method or operator of torch, which its name says."""
    if isinstance(node.target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return str(node.target).startswith("aten.")
    return node.op in ("call_function", "call_method")


def sets_grad_mode(node: fx.Node) -> bool:
    """Tell whether a node turns autograd on or off."""
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
    """Tell whether a node sets which attention kernels may be used.

    `torch.nn.attention.sdpa_kernel` becomes two of them: one that sets and one that sets back.
    """
    return getattr(node.target, "__name__", "") == "_sdpa_kernel"


def names_kernel(node: fx.Node) -> bool:
    """Tell whether a node looks up an attention kernel by its name, for those that set some."""
    return getattr(node.target, "__name__", "") == "_backend_from_string"


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


_OFFSET_AT = {"as_strided": 3, "as_strided_": 3, "as_strided_copy": 3, "as_strided_scatter": 4}


def names_a_place(node: fx.Node) -> bool:
    """Tell whether a node's offset counts from the start of a storage, not of the tensor."""
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
    at = _OFFSET_AT.get(name, len(node.args))
    offset = node.args[at] if at < len(node.args) else node.kwargs.get("storage_offset")
    return name in _OFFSET_AT and offset is not None


def attribute_of(module: fx.GraphModule, target: str) -> Any:
    """Look up the object that a `get_attr` node refers to."""
    found: Any = module
    for part in target.split("."):
        found = getattr(found, part)
    return found
