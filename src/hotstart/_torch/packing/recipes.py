"""Graphs that compute what depends on weights alone, and the body that takes their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    def only(self, numbers: Sequence[int]) -> Recipe:
        """Make a recipe of some of the results, by number, which reads no weight in vain."""
        weights = list(self.module.graph.find_nodes(op="placeholder"))
        read = ancestors(*(results_of(self.module)[number] for number in numbers))
        inputs = [number for number, weight in enumerate(weights) if weight in read]
        module = _part_of(self.module, numbers, inputs)
        plain = None if self.plain is None else _part_of(self.plain, numbers, inputs)
        if plain is not None and _operators(plain) == _operators(module):
            plain = None  # none of these is packed
        return Recipe(module, plain, tuple(self.weights[n] for n in inputs), len(numbers))

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


def ancestors(*nodes: Any) -> set[fx.Node]:
    """Find nodes, and all that they are computed from. What is no node has nothing."""
    found: set[fx.Node] = set()
    pending = [node for node in nodes if isinstance(node, fx.Node)]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += one.all_input_nodes
    return found


def results_of(module: fx.GraphModule) -> Sequence[Any]:
    """List the results of a module that returns a tuple."""
    (output,) = module.graph.find_nodes(op="output")
    results: Sequence[Any] = output.args[0]
    return results


def _operators(module: fx.GraphModule) -> list[Any]:
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def _part_of(
    module: fx.GraphModule, numbers: Sequence[int], inputs: Sequence[int]
) -> fx.GraphModule:
    """A module of some results and some inputs, by number; other inputs are not needed."""
    graph = fx.Graph()
    weights = list(module.graph.find_nodes(op="placeholder"))
    results = [results_of(module)[number] for number in numbers]
    copies = {weights[n]: graph.placeholder(f"weight_{new}") for new, n in enumerate(inputs)}
    needed = ancestors(*results)
    for node in module.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(fx.map_arg(tuple(results), copies.__getitem__))
    return fx.GraphModule(torch.nn.Module(), graph)


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
