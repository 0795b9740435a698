"""Refuse graphs that no program can replay, since they may differ from call to call."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import fx

from hotstart._torch.dynamo.full_graph import FullGraph
from hotstart._torch.dynamo.gradients import asks_for_gradients, other_transform
from hotstart._torch.dynamo.layout_reads import LayoutReads
from hotstart._torch.graphs.nodes import is_drawn_by_python, names_a_place, replaces_memory
from hotstart._torch.graphs.source_lines import line_of
from hotstart._torch.graphs.symbols import conditions
from hotstart._torch.graphs.values import mentions, storage_of, unbacked_in
from hotstart._torch.processes.collectives import (
    collective_name,
    collectives_inside,
    communicates,
    is_taken,
    waits,
)
from hotstart._torch.processes.ranks import is_group, is_mesh
from hotstart._torch.running.hooks import is_compiled
from hotstart.capture.numbers import Numbers
from hotstart.errors import CaptureError
from hotstart.model import ModelIndex

if TYPE_CHECKING:
    import sympy


class BranchOnContents(CaptureError):
    """Forward branches on what a tensor holds."""


def not_one_graph(
    line: str, reason: str, advice: str, kind: type[CaptureError] = CaptureError
) -> CaptureError:
    """The error that says where and why a model is not one graph, and what to change."""
    parts = [("at", line), ("because", reason), ("do", advice or "write that line another way")]
    listed = "".join(f"\n  {label + ':':9}{text}" for label, text in parts if text)
    return kind(f"the model cannot be captured as one graph.{listed}")


def not_idle(line: str, reason: str) -> CaptureError:
    """The error of a skipped branch that would have had an effect."""
    return not_one_graph(
        line,
        "a branch depends on the contents of a tensor, and what it leaves out where there is "
        f"nothing to do does something: {reason}",
        "torch.cond with both branches, or torch.where; or nothing but writes to rows that are "
        "selected, as by index_add_ and x[rows] = y",
        BranchOnContents,
    )


def refuse_contents(traced: FullGraph, settled: Mapping[sympy.Symbol, sympy.Expr]) -> None:
    """Raise if a trace specialised on the number that an argument holds.

    Args:
        traced: what Dynamo made of a call.
        settled: symbols whose value a check in the graph settles: see `keep_checks`.
    """
    read = traced.content_symbols()
    if not read:
        return
    for node in traced.module.graph.nodes:
        if mentions(node.meta.get("example_value"), read):
            raise _depends_on_contents(line_of(node))
    for condition in conditions(traced.env):
        if mentions(condition.expr.xreplace(settled), read):
            raise _depends_on_contents(condition.source)


def refuse_unknown(
    traced: FullGraph, numbers: Numbers, settled: Mapping[sympy.Symbol, sympy.Expr]
) -> None:
    """Raise if a size or a number depends on contents of tensors and no node makes it."""
    known = {*numbers.unbacked, *settled}
    for node in traced.module.graph.nodes:
        if unbacked_in(node.meta.get("example_value")) - known:
            raise _depends_on_contents(line_of(node))


def refuse_unbacked(graph: fx.Graph) -> None:
    """Raise if a size or number in a graph is known only once a tensor's contents are.

    Dynamo puts it there for a backend only if its user has set it to.
    """
    for node in graph.nodes:
        if unbacked_in(node.meta.get("example_value")):
            raise not_one_graph(
                line_of(node),
                "a number or a shape depends on the contents of a tensor, which the backend "
                "'hotstart' does not serve",
                "use hotstart.compile(model, ...), which does; or set capture_scalar_outputs and "
                "capture_dynamic_output_shape_ops of torch._dynamo.config to False, so that the "
                "line runs in eager mode between two graphs",
            )


def _depends_on_contents(line: str) -> CaptureError:
    return not_one_graph(
        line,
        "a number or a shape depends on the contents of a tensor in a way that cannot be traced",
        "keep the number in a tensor, and the shape fixed, by torch.where or a mask; or pass the "
        "number as a size",
    )


def refuse_skipped_hooks(index: ModelIndex) -> None:
    """Raise if a module that `torch.compile` made has hooks, which Dynamo leaves out."""
    for path, module in index.modules.items():
        hooks = module._forward_hooks or module._forward_pre_hooks
        if hooks and is_compiled(module):
            raise CaptureError(
                f"{path}: expected a module without hooks, since torch.compile made it and a trace "
                "leaves its hooks out, found some. Register them with the module that was "
                f"compiled, {path}._orig_mod, or compile that one in place: .compile()."
            )


def refuse_gradients(traced: FullGraph) -> None:
    """Raise if forward reads what autograd has left with a tensor, which each backward changes."""
    for _, name, key in traced.reads:
        owner = name if key == "grad" else name.removesuffix(".grad")  # the latter up to torch 2.12
        is_read = key == "grad" or owner != name
        if is_read and isinstance(traced.object_named(owner), torch.Tensor):
            raise CaptureError(
                f"forward reads {traced.plain_name(owner)}.grad, which is another tensor after "
                "each backward. Pass it as an argument, or keep it in a buffer."
            )


def refuse_mixed_gradients(graph: fx.Graph) -> None:
    """Raise if forward calls `torch.autograd.grad`, and a functional transform beside it."""
    other = other_transform(graph)
    if other is not None and asks_for_gradients(graph):
        raise not_one_graph(
            line_of(other),
            "forward computes gradients by torch.autograd.grad, and by torch.func or torch.vmap",
            "use torch.func for both, as torch.func.grad of a function",
        )


def refuse_replaced_memory(graph: fx.Graph) -> None:
    """Raise if a tensor is given other memory, which no compiler follows."""
    for node in graph.nodes:
        if replaces_memory(node):
            raise not_one_graph(
                line_of(node),
                "a tensor is given the memory of another",
                "copy the values with .copy_(), or give the other tensor the name",
            )


def refuse_drawn_numbers(graph: fx.Graph) -> None:
    """Raise if Python's `random` draws a number, which would be the same in each call."""
    for node in graph.find_nodes(op="placeholder"):
        if is_drawn_by_python(node):
            raise not_one_graph(
                next((line for line in map(line_of, node.users) if line), node.name),
                "a number is drawn by Python's random, anew in each call",
                "draw it with torch, or pass it as an argument",
            )


def refuse_collectives(module: fx.GraphModule) -> None:
    """Raise if a graph has collectives that a program cannot replay."""
    for node in collectives_inside(module):
        raise _odd_collective(node, "is inside of torch.cond, checkpoint or another function")
    for node in filter(communicates, module.graph.nodes):
        if not is_taken(node):
            raise _odd_collective(node, "is none of those that programs have")
        if not waits(node) and not all(map(_is_waited_for_once, _results(node))):
            raise _odd_collective(node, "gives a result that is not waited for exactly once")


def _odd_collective(node: fx.Node, reason: str) -> CaptureError:
    return not_one_graph(
        line_of(node),
        f"{collective_name(node)} {reason}",
        "call torch.distributed.all_reduce, all_gather_into_tensor, reduce_scatter_tensor or "
        "all_to_all_single, or their functional forms, outside of such functions",
    )


def _results(node: fx.Node) -> Iterable[fx.Node]:
    """The tensors that a collective gives: itself, or the items of its list."""
    items = [user for user in node.users if user.target is operator.getitem]
    return items or [node]


def _is_waited_for_once(result: fx.Node) -> bool:
    """Tell whether one wait alone reads a result; the two share memory."""
    return len(result.users) == 1 and all(map(waits, result.users))


def refuse_passed_groups(traced: FullGraph) -> None:
    """Raise if operators are given a group of processes or a mesh as an object, as DTensor does."""
    for node in traced.module.graph.find_nodes(op="placeholder"):
        source = getattr(node, "_dynamo_source", None)
        held = None if source is None else traced.object_named(source.name)
        if is_group(held) or is_mesh(held):
            raise CaptureError(
                f"{traced.name_of(node)}: got a {type(held).__qualname__} that operators take, as "
                "those of DTensor do; takes plain tensors, and collectives of torch.distributed. "
                "Give each rank its part of a weight as a plain tensor (DTensor.to_local), and "
                "call torch.distributed.all_reduce and its like in forward."
            )


def refuse_places(graph: fx.Graph) -> None:
    """Raise if a graph reads an argument or weight at an absolute storage offset.

    The storage offset of a tensor may differ from call to call.
    """
    given = _memory(graph.find_nodes(op="placeholder"))
    for node in graph.nodes:
        if names_a_place(node) and given & _memory(node.all_input_nodes):
            raise not_one_graph(
                line_of(node),
                "as_strided has a storage_offset, and the memory is an argument's or a weight's, "
                "whose own offset in its memory may differ from call to call",
                "leave the offset out, which means the tensor's own, or call as_strided on a clone",
            )


def _memory(nodes: Iterable[fx.Node]) -> set[int]:
    examples = (node.meta.get("example_value") for node in nodes)
    return {storage_of(e) for e in examples if isinstance(e, torch.Tensor)}


def refuse_found_arguments(traced: FullGraph) -> None:
    """Raise if code compares an argument by identity, or reaches the caller's object elsewhere."""
    for argument, name in traced.met.items():
        raise CaptureError(
            f"{argument}: expected an object that forward knows as an argument only, found one "
            f"that may be {traced.plain_name(name)}, which forward reads as well. A program sees "
            "what is in an object that it is passed, and not which one it is. Pass a text or a "
            "number that says which is meant."
        )


def refuse_questions(asked: LayoutReads) -> None:
    """Raise if code asks for the base of a view, which differs from call to call."""
    for read in asked.reads:
        if read.asked == "base":
            raise not_one_graph(
                read.line,
                "forward reads _base, and whether an argument is a view may differ from call to "
                "call",
                "take the question out of forward, or pass its answer as an argument",
            )
