"""Arguments of generated code are followed back to the weights that they are made of."""

from __future__ import annotations

import torch
from torch import fx

from hotstart._torch.packing.recipes import Recipe
from hotstart.compilers.inductor.made_of import MadeOf, Part


def recipe_of_parts(*positions: int, dim: int = 0) -> Recipe:
    """A recipe that puts weights, given by position, one after the other or side by side."""
    graph = fx.Graph()
    parts = [graph.placeholder(f"weight_{position}") for position in positions]
    graph.output((graph.call_function(torch.ops.aten.cat.default, (parts, dim)),))
    module = fx.GraphModule(torch.nn.Module(), graph)
    return Recipe(module, module, positions, 1)


def test_a_row_has_the_elements_of_its_parts() -> None:
    inputs = [torch.zeros(3), torch.zeros(1), torch.zeros(2, 2), torch.zeros(4)[::2]]
    recipes = [recipe_of_parts(0, 1), recipe_of_parts(1), recipe_of_parts(0, 2), recipe_of_parts(3)]
    made = MadeOf(recipes, inputs)
    assert [made.row(number) for number in range(4)] == [4, 1, None, None]


def test_columns_come_from_parts_in_order() -> None:
    made = MadeOf([recipe_of_parts(1, 0)], [torch.zeros(3, 2), torch.zeros(5, 2)])
    assert made.parts(0, packed=True) == [Part(1, across=False), Part(0, across=False)]
    # One after the other, inputs of the same columns: no weight gives a column.
    assert made.parts(0, packed=False) is None


def test_weights_with_a_row_for_each_input_give_columns_side_by_side() -> None:
    made = MadeOf([recipe_of_parts(1, 0, dim=1)], [torch.zeros(2, 3), torch.zeros(2, 5)])
    assert made.parts(0, packed=False) == [Part(1, across=True), Part(0, across=True)]
    assert made.parts(0, packed=True) is None
