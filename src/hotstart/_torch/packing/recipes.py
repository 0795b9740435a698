"""Graphs that compute what depends on weights alone, and the body that takes their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Recipe:
    """Tensors that depend on weights alone.

    Attributes:
        module: computes them, as a tuple, from the weights.
        plain: computes tensors that stand for them, without packing, and None for those that
            nothing stands for; None if nothing is packed.
        weights: positions of the weights, among the inputs of the graph they were taken out of.
        outputs: how many there are.
    """

    module: fx.GraphModule
    plain: fx.GraphModule | None
    weights: tuple[int, ...]
    outputs: int

    def laid_out(self, layouts: Mapping[int, fx.GraphModule]) -> Recipe:
        """Make a recipe that lays out packed weights by graphs, by the number of the result."""
        packed = _with_results(self.module, partial(_laid_out, layouts))
        plain = _with_results(self.plain or self.module, partial(_left_out, layouts))
        return replace(self, module=packed, plain=plain)


@dataclass(frozen=True)
class BySize:
    """Weights that oneDNN wants in another layout at other sizes.

    Attributes:
        size: that decides, a symbol of the graph's shape environment.
        low: the lowest size.
        chosen: for each size from that on, a number: 0 for the weights that recipes make anyway, n
            for those of `instead[n - 1]`.
        instead: recipes of one result, by the number of the result that they stand in for, as the
            body counts what recipes make.
    """

    size: sympy.Symbol
    low: int
    chosen: tuple[int, ...]
    instead: tuple[Mapping[int, Recipe], ...]


@dataclass(frozen=True)
class Separated:
    """A graph in two parts.

    Attributes:
        kept: positions of the inputs that the body still has, in order.
        inputs: example inputs of the body: those kept, then what the recipes make.
        recipes: what depends on weights alone, in the order the body takes it.
        by_size: weights that are packed otherwise for some sizes.
    """

    kept: tuple[int, ...]
    inputs: tuple[Any, ...]
    recipes: tuple[Recipe, ...]
    by_size: BySize | None = None

    def laid_out(self, layouts: Mapping[int, fx.GraphModule]) -> Separated:
        """Lay out packed weights by graphs, by the number of the body's input."""
        recipes = []
        first = len(self.kept)
        for recipe in self.recipes:
            own = {n: layouts[first + n] for n in range(recipe.outputs) if first + n in layouts}
            recipes.append(recipe.laid_out(own) if own else recipe)
            first += recipe.outputs
        return replace(self, recipes=tuple(recipes))


def _with_results(
    module: fx.GraphModule, instead: Callable[[fx.Graph, int, fx.Node], Any]
) -> fx.GraphModule:
    """A copy of a module with other results."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    results = graph.graph_copy(module.graph, copies)
    assert isinstance(results, tuple)
    graph.output(tuple(instead(graph, n, result) for n, result in enumerate(results)))
    graph.eliminate_dead_code()
    return fx.GraphModule(torch.nn.Module(), graph)


def _laid_out(
    layouts: Mapping[int, fx.GraphModule], graph: fx.Graph, number: int, packed: Any
) -> Any:
    """Lay out the weight that a node packs, which what was recorded took to be contiguous."""
    if number not in layouts:
        return packed
    (weight, *_) = packed.args
    dense = graph.call_function(torch.ops.aten.contiguous.default, (weight,))
    (taken,) = layouts[number].graph.find_nodes(op="placeholder")
    return graph.graph_copy(layouts[number].graph, {taken: dense})


def _left_out(
    layouts: Mapping[int, fx.GraphModule], graph: fx.Graph, number: int, packed: Any
) -> Any:
    return None if number in layouts else packed
