"""Pack weights of convolutions whose sizes are ranges, which Inductor leaves as they are.

oneDNN picks the layout of a weight by the size of the image and the batch, and one that it would
not have picked is reordered in every call, which takes longer than the convolution. So a weight is
packed if all sizes agree, or if a few layouts serve the sizes of one range: then a call chooses.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.dynamo.graph_inputs import bounds_of, hint_of, tuned_size
from hotstart._torch.packing.recorder import Layouts, Recorder

if TYPE_CHECKING:
    import sympy

_MOST_TRIED = 16
"""Sizes of a range up to which all of them are tried."""

_MOST_SIZES = 1024
"""Sizes of a range up to which weights are packed in several layouts."""

_MOST_LAYOUTS = 4
"""Bound on the layouts of a graph's weights; each takes as much memory as they do."""

Layout = tuple[int, ...]


@dataclass(frozen=True)
class _Range:
    """The layouts that a weight has for a range of sizes.

    Attributes:
        size: the size.
        low: the lowest.
        tuned: the size that the range is tuned for.
        layouts: for each size from the lowest on.
    """

    size: sympy.Symbol
    low: int
    tuned: int
    layouts: tuple[Layout, ...]


@dataclass
class PackedBySize:
    """Convolutions whose weights are packed in several layouts."""

    nodes: list[tuple[fx.Node, Sequence[int | torch.SymInt], _Range]] = field(default_factory=list)

    def takes(self, found: _Range) -> bool:
        """Tell whether a further weight can be packed in several layouts."""
        ranges = [each for _, _, each in self.nodes]
        if any((each.size, each.low) != (found.size, found.low) for each in ranges):
            return False
        together = set(zip(*(each.layouts for each in (*ranges, found)), strict=True))
        return len(together) <= _MOST_LAYOUTS

    def recorded(self, recorder: Recorder) -> Layouts | None:
        """Record the weights of sizes other than the one that is tuned for."""
        if not self.nodes:
            return None
        first = self.nodes[0][2]
        together = list(zip(*(each.layouts for _, _, each in self.nodes), strict=True))
        different = dict.fromkeys([together[first.tuned - first.low], *together])
        instead = []
        for layouts in list(different)[1:]:
            size = first.low + together.index(layouts)
            instead.append(
                {
                    str(_packed(node).target): recorder.packed_for(
                        _packed(node), _shape_at(shape, {each.size: max(size, 1)})
                    )
                    for (node, shape, each), layout in zip(self.nodes, layouts, strict=True)
                    if layout != each.layouts[each.tuned - each.low]
                }
            )
        numbers = {layouts: number for number, layouts in enumerate(different)}
        chosen = tuple(numbers[layouts] for layouts in together)
        return Layouts(first.size, first.low, chosen, tuple(instead))


def _packed(node: fx.Node) -> fx.Node:
    weight = node.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        raise ValueError("a packed weight does not follow from weights alone")
    return weight


def pack_convolutions(graph: fx.Graph) -> PackedBySize:
    """Have the weights of convolutions packed.

    A convolution with a packed weight gives channels last, always. Inductor expects that, but where
    its input is contiguous in both ways. Such a convolution, and one that is not packed, is what it
    was, as oneDNN's operator would choose the layout of its result by each call's strides.

    Returns:
        Those whose weights are packed in several layouts, of which a call chooses.
    """
    pointwise = torch.ops.mkldnn._convolution_pointwise.default
    by_size = PackedBySize()
    for node in graph.find_nodes(op="call_function", target=pointwise):
        image, weight, _, padding, stride, dilation, groups, *_ = node.args
        shape = image.meta["val"].shape
        if weight.op != "get_attr" or all(isinstance(size, int) for size in shape):
            continue
        settings = (tuple(padding), tuple(stride), tuple(dilation), groups)
        tensor = weight.meta["val"]
        twice = shape[1] == 1 or all(isinstance(size, int) and size == 1 for size in shape[2:])
        if not twice and _same_layout(tensor, settings, shape):
            _pack(node, shape)
            continue
        found = None if twice else _range_of(tensor, settings, shape)
        if found is not None and by_size.takes(found):
            by_size.nodes.append((node, shape, found))
            _pack(node, shape)
        else:
            _leave(node)
    return by_size


def _pack(node: fx.Node, shape: Sequence[int | torch.SymInt]) -> None:
    """Have a convolution's weight packed for the size that is tuned for."""
    _, weight, _, padding, stride, dilation, groups, *_ = node.args
    pack = torch.ops.mkldnn._reorder_convolution_weight.default
    with node.graph.inserting_before(node):
        args = (weight, padding, stride, dilation, groups, [*map(tuned_size, shape)])
        node.update_arg(1, node.graph.call_function(pack, args))


def _leave(node: fx.Node) -> None:
    """Make a convolution what it was before Inductor's pass."""
    image, weight, bias, padding, stride, dilation, groups, *_ = node.args
    zeros = [0] * len(stride)  # type: ignore[arg-type]
    with node.graph.inserting_before(node):
        same = (image, weight, bias, stride, padding, dilation, False, zeros, groups)
        new = node.graph.call_function(torch.ops.aten.convolution.default, same)
    new.meta.update(node.meta)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def _same_layout(
    weight: torch.Tensor, settings: tuple[Any, ...], shape: Sequence[int | torch.SymInt]
) -> bool:
    """Tell whether a weight is packed into one layout: at the ends of ranges, and nearby."""
    bounds = _bounds(shape)
    tried = [
        {symbol: max(low, 1) for symbol, (low, _) in bounds.items()},
        {symbol: min(max(low, 1) + 1, high) for symbol, (low, high) in bounds.items()},
        {symbol: min(max(low, 1) + 2, high) for symbol, (low, high) in bounds.items()},
        {symbol: high for symbol, (_, high) in bounds.items()},
    ]
    shapes = [*(_shape_at(shape, sizes) for sizes in tried), [*map(tuned_size, shape)]]
    first, *others = (_layout_of(weight, settings, each) for each in shapes)
    return all(layout == first for layout in others)


def _range_of(
    weight: torch.Tensor, settings: tuple[Any, ...], shape: Sequence[int | torch.SymInt]
) -> _Range | None:
    """Find the layouts of a weight for each size of a range; None if they are not known.

    In a long range, sizes near each power of two are tried. A size between two that agree, both as
    even or as odd as it is, has their layout; oneDNN shares out even batches otherwise than odd.
    """
    bounds = _bounds(shape)
    if len(bounds) != 1:
        return None
    ((symbol, (low, high)),) = bounds.items()
    if high - low >= _MOST_SIZES:
        return None
    tuned = next(hint_of(size.node.shape_env, symbol) for size in _symbolic(shape))
    known = {
        size: _layout_of(weight, settings, _shape_at(shape, {symbol: max(size, 1)}))
        for size in _tried(low, high, tuned)
    }
    layouts: list[Layout] = []
    for size in range(low, high + 1):
        below = max((n for n in known if n <= size and (size - n) % 2 == 0), default=None)
        above = min((n for n in known if n >= size and (size - n) % 2 == 0), default=None)
        if below is None or above is None or known[below] != known[above]:
            return None
        layouts.append(known[below])
    return _Range(symbol, low, tuned, tuple(layouts))


def _tried(low: int, high: int, tuned: int) -> set[int]:
    """List the sizes of a range to try: all of a short one."""
    sizes = {tuned, *range(low, min(high, low + _MOST_TRIED - 1) + 1), high - 1, high}
    power = 1
    while power < high:
        sizes |= {power, power + 1}
        power *= 2
    return {size for size in sizes if low <= size <= high}


def _layout_of(weight: torch.Tensor, settings: tuple[Any, ...], shape: Sequence[int]) -> Layout:
    """Identify the layout that a weight is packed into for an input of some shape."""
    threads = torch.get_num_threads()
    return _layout(tuple(weight.shape), weight.dtype, settings, tuple(shape), threads)


@functools.lru_cache(maxsize=4096)
def _layout(
    weight: tuple[int, ...],
    dtype: torch.dtype,
    settings: tuple[Any, ...],
    shape: tuple[int, ...],
    _threads: int,
) -> Layout:
    """Pack a weight to see into which layout.

    `_get_mkldnn_serialized_md` (2.11 to 2.15) gives a packed tensor's layout as AOTInductor does.
    """
    packing = torch.ops.mkldnn
    with torch.utils._python_dispatch._disable_current_modes():
        packed = packing._reorder_convolution_weight(
            torch.empty(weight, dtype=dtype), *settings, shape
        )
        return tuple(packing._get_mkldnn_serialized_md(packed).tolist())


def _symbolic(shape: Sequence[int | torch.SymInt]) -> Iterator[torch.SymInt]:
    yield from (size for size in shape if isinstance(size, torch.SymInt))


def _bounds(shape: Sequence[int | torch.SymInt]) -> dict[sympy.Symbol, tuple[int, int]]:
    """Look up the bounds of the symbols of a shape."""
    found: dict[sympy.Symbol, tuple[int, int]] = {}
    for size in _symbolic(shape):
        for symbol in size.node.expr.free_symbols:
            found[symbol] = bounds_of(size.node.shape_env, symbol)
    return found


def _shape_at(shape: Sequence[int | torch.SymInt], sizes: dict[sympy.Symbol, int]) -> list[int]:
    return [s if isinstance(s, int) else int(s.node.expr.xreplace(sizes)) for s in shape]
