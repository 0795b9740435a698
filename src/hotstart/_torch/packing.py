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

from hotstart._torch.recipes import Separated
from hotstart._torch.recorder import Recorder, hashable

_ROUNDS = 4
"""Rounds of folding arithmetic into convolutions; each takes one more operator."""

_VIEWS = frozenset({torch.ops.aten.reshape.default, torch.ops.aten.view.default})

Pack = Callable[[int, int], bool]
"""Decides if a linear is packed, by its rows where a range is tuned and its weight's elements."""


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
    first.apply(graph.graph)
    recorder.fold()
    recorder.propagate()
    with V.set_aot_compilation(True), _hidden(graph.graph, pack):
        for patterns in others:
            patterns.apply(graph.graph)
    _pack_convolutions(graph.graph)
    recorder.fold()
    return recorder.separated()


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
        if not pack(_hint(rows), weight.meta["val"].numel()):
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


def _pack_convolutions(graph: fx.Graph) -> None:
    """Have weights packed of convolutions whose sizes are ranges, which Inductor does not.

    oneDNN picks the layout by the size of the image and the batch, and one that it would not have
    picked is reordered in every call, which takes longer than the convolution. So a weight is
    packed if all sizes that are tried agree.

    A convolution with a packed weight gives channels last, always. Inductor expects that, but where
    its input is contiguous in both ways. Such a convolution, and one that is not packed, is what it
    was, as oneDNN's operator would choose the layout of its result by each call's strides.
    """
    pointwise = torch.ops.mkldnn._convolution_pointwise.default
    for node in graph.find_nodes(op="call_function", target=pointwise):
        image, weight, bias, *rest = node.args
        padding, stride, dilation, groups = rest[:4]
        shape = image.meta["val"].shape
        if weight.op != "get_attr" or all(isinstance(size, int) for size in shape):
            continue
        settings = (padding, stride, dilation, groups)
        twice = shape[1] == 1 or all(isinstance(size, int) and size == 1 for size in shape[2:])
        with graph.inserting_before(node):
            if twice or not _same_layout(weight.meta["val"], settings, _some_of(shape)):
                zeros = [0] * len(stride)
                same = (image, weight, bias, stride, padding, dilation, False, zeros, groups)
                new = graph.call_function(torch.ops.aten.convolution.default, same)
                new.meta.update(node.meta)
                node.replace_all_uses_with(new)
                graph.erase_node(node)
            else:
                pack = torch.ops.mkldnn._reorder_convolution_weight.default
                args = (weight, *settings, [*map(_hint, shape)])
                node.update_arg(1, graph.call_function(pack, args))


def _same_layout(weight: torch.Tensor, settings: tuple[Any, ...], shapes: list[list[int]]) -> bool:
    """Tell whether a weight is packed into one layout for inputs of some shapes.

    `_get_mkldnn_serialized_md` (2.11 to 2.15) gives a packed tensor's layout as AOTInductor does.
    """
    packing = torch.ops.mkldnn
    with torch.utils._python_dispatch._disable_current_modes():
        empty = torch.empty(weight.shape, dtype=weight.dtype)
        packed = (packing._reorder_convolution_weight(empty, *settings, s) for s in shapes)
        layouts = [packing._get_mkldnn_serialized_md(tensor).tolist() for tensor in packed]
    return all(layout == layouts[0] for layout in layouts)


def _some_of(shape: Sequence[int | torch.SymInt]) -> list[list[int]]:
    """List a shape at the ends of its symbols' ranges, at the next size, and where it is tuned."""
    symbolic = [size.node for size in shape if isinstance(size, torch.SymInt)]
    env = symbolic[0].shape_env
    symbols = {symbol for node in symbolic for symbol in node.expr.free_symbols}
    ranges = {symbol: env.var_to_range[symbol] for symbol in symbols}
    tried = [
        {symbol: max(bound.lower, 1) for symbol, bound in ranges.items()},
        {symbol: min(max(bound.lower, 1) + 1, bound.upper) for symbol, bound in ranges.items()},
        {symbol: bound.upper for symbol, bound in ranges.items()},
    ]
    shapes = [
        [size if isinstance(size, int) else int(size.node.expr.xreplace(values)) for size in shape]
        for values in tried
    ]
    return [*shapes, [*map(_hint, shape)]]


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


def _hint(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else int(size.node.hint)
