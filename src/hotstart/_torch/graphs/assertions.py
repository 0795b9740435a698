"""Assertions of a graph about the contents of tensors."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import fx

from hotstart._torch.graphs.symbols import expression

if TYPE_CHECKING:
    import sympy
from hotstart._torch.graphs.source_lines import line_of, without_folders
from hotstart._torch.graphs.values import plain_number


def asserts_contents(node: fx.Node) -> bool:
    """Tell whether a node does nothing but assert something about the contents of a tensor."""
    return str(getattr(node.target, "__name__", "")).startswith("_assert_async")


def complete_examples(graph: fx.Graph) -> None:
    """Give elements of tensors that `tolist` reads their fake values, which Dynamo leaves out."""
    for node in graph.find_nodes(op="call_function", target=operator.getitem):
        base, index = node.args
        if "example_value" in node.meta or not isinstance(base, fx.Node):
            continue
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
