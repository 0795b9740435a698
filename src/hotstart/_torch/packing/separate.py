"""Move what depends on weights alone out of a graph, and have Inductor pack weights there.

Inductor packs weights only where it may freeze them: its passes ask for `get_attr` nodes, and
evaluate what follows from them. Here the weights are stand-ins without values, and instead of
evaluating what depends on them alone it is taken down as a graph of its own, a recipe, whose
results become inputs of what is left. So no weight's value is looked at, and every pass of
Inductor's that freezing turns on works: packing, folding into convolutions, one matrix for several.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import fx

from hotstart._torch.packing.convolutions import pack_convolutions
from hotstart._torch.packing.recipes import Separated
from hotstart._torch.packing.recorder import Recorder, hashable

_ROUNDS = 4
"""Rounds of folding arithmetic into convolutions; each takes one more operator."""

_VIEWS = frozenset({torch.ops.aten.reshape.default, torch.ops.aten.view.default})

Pack = Callable[[int | torch.SymInt, torch.Tensor], bool]
"""Decides if a linear is packed, by its rows and weight, a fake with a column for each output."""


def separate(
    graph: fx.GraphModule, inputs: Sequence[Any], weights: Collection[int], pack: Pack
) -> Separated:
    """Move what depends on weights alone out of a graph, which becomes the body.

    The passes are those of `freezing_passes` (2.11 to 2.15), in its order; the recorder takes the
    place of `constant_fold`, which evaluates weights. `V.set_aot_compilation` makes them pack
    linears for oneDNN and not for MKL, whose packed weights cannot be used at other sizes.

    Args:
        graph: the graph that Inductor's post-grad passes would get.
        inputs: its example inputs.
        weights: positions of the inputs that are weights, which nothing writes to.
        pack: chooses linears.

    Raises:
        Exception: a pass asks for the value of a weight. The graph is of no use any more.
    """
    from torch._inductor.fx_passes import binary_folding, freezing_patterns
    from torch._inductor.fx_passes.post_grad import view_to_reshape
    from torch._inductor.virtualized import V

    freezing_patterns.lazy_init()
    view_to_reshape(graph)
    _merge_views(graph.graph)
    recorder = Recorder(graph, inputs, weights)
    recorder.propagate()
    binary_folding.mark_mixed_dtype_allowed_computation_ops(graph)
    for _ in range(_ROUNDS):
        recorder.fold()
        recorder.propagate()
        if _ambiguous(graph.graph) or not freezing_patterns.binary_folding_pass.apply(graph.graph):
            break
    binary_folding.recover_original_precision_folded_computation_ops(graph)
    recorder.fold()
    recorder.propagate()
    first, *others = freezing_patterns.pass_patterns
    if not _reads_by_strides(graph.graph):
        first.apply(graph.graph)
        recorder.fold()
        recorder.propagate()
    with V.set_aot_compilation(True), _hidden(graph.graph, pack):
        for patterns in others:
            patterns.apply(graph.graph)
    by_size = pack_convolutions(graph.graph)
    recorder.fold()
    return recorder.separated(by_size.recorded(recorder))


@contextlib.contextmanager
def _hidden(graph: fx.Graph, pack: Pack) -> Iterator[None]:
    """Keep passes from packing linears that are faster with the weight as it is.

    They pack weights that are attributes, so others are hidden behind an operator meanwhile.
    """
    hidden: list[fx.Node] = []
    for node in list(graph.nodes):
        position = {torch.ops.aten.mm.default: 1, torch.ops.aten.addmm.default: 2}.get(node.target)
        if position is None or node.args[position].op != "get_attr":
            continue
        weight, rows = node.args[position], node.args[position - 1].meta["val"].shape[0]
        if not pack(rows, weight.meta["val"]):
            with graph.inserting_before(node):
                alias = graph.call_function(torch.ops.aten.alias.default, (weight,))
            alias.meta.update(weight.meta)
            node.update_arg(position, alias)
            hidden.append(alias)
    yield
    for alias in hidden:
        (weight,) = alias.all_input_nodes
        alias.replace_all_uses_with(weight)
        graph.erase_node(alias)


def _reads_by_strides(graph: fx.Graph) -> bool:
    """Tell whether a graph may read a linear's result with strides that it was traced with.

    Where several linears become one, each result is a part of rows that are wider.
    """
    targets = (torch.ops.aten.as_strided.default, torch.ops.aten.as_strided_scatter.default)
    return any(graph.find_nodes(op="call_function", target=target) for target in targets)


def _ambiguous(graph: fx.Graph) -> bool:
    """Tell whether folding would put several numbers into one tensor.

    The pass (`binary_folding`, 2.11 to 2.15) names every such tensor `other_tensor`, so that two
    convolutions that are scaled by different numbers would both be scaled by the last.
    """
    numbers = 0
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.convolution.default):
        for user in node.users:
            numbers += any(isinstance(arg, float | int) for arg in user.args)
    return numbers > 1


def written_inputs(graph: fx.Graph) -> set[int]:
    """Find the inputs that a functional graph still writes to, by position.

    Not every operator that writes says so before AOTAutograd: `native_batch_norm` does not.
    """
    placeholders = graph.find_nodes(op="placeholder")
    return {
        position
        for position, node in enumerate(placeholders)
        if isinstance(node.meta["val"], torch.Tensor) and any(map(_writes, node.users))
    }


def _writes(node: fx.Node) -> bool:
    """Tell whether a node may write to its arguments; higher-order operators do not say."""
    if node.op == "output" or node.target is operator.getitem:
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is None or bool(schema.is_mutable)


def _merge_views(graph: fx.Graph) -> None:
    """Make one of views that are the same view of the same tensor, which hide a shared input."""
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _VIEWS:
            continue
        key = (node.target, hashable(node.args), hashable(node.kwargs))
        first = known.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)
