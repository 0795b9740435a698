"""What depends on weights alone, and parts of it."""

from __future__ import annotations

import torch
from torch import fx

from hotstart._torch.packing.recipes import Recipe

PACK = torch.ops.mkldnn._reorder_linear_weight.default
DOUBLE = torch.ops.aten.mul.Scalar


def recipe(*, plain: bool) -> tuple[fx.GraphModule, int]:
    """A packed weight, and another one doubled, of three weights of which none is in vain."""
    graph = fx.Graph()
    first, second, third = (graph.placeholder(f"weight_{n}") for n in range(3))
    joined = graph.call_function(torch.ops.aten.cat.default, ([first, third],))
    packed = joined if plain else graph.call_function(PACK, (joined, 16))
    doubled = graph.call_function(DOUBLE, (second, 2.0))
    graph.output((packed, doubled))
    return fx.GraphModule(torch.nn.Module(), graph), 2


def both() -> Recipe:
    module, outputs = recipe(plain=False)
    return Recipe(module, recipe(plain=True)[0], (7, 4, 9), outputs)


def test_a_part_reads_the_weights_that_it_needs() -> None:
    doubled = both().only([1])
    assert doubled.weights == (4,)
    assert doubled.outputs == 1
    (made,) = doubled.module(torch.ones(2, 2))
    assert torch.equal(made, torch.full((2, 2), 2.0))


def test_a_part_of_which_nothing_is_packed_has_no_second_form() -> None:
    assert both().only([1]).plain is None


def test_a_part_that_is_packed_keeps_its_second_form() -> None:
    packed = both().only([0])
    assert packed.weights == (7, 9)
    assert packed.plain is not None
    (plain,) = packed.plain(torch.ones(2, 4), torch.zeros(2, 4))
    assert torch.equal(plain, torch.cat([torch.ones(2, 4), torch.zeros(2, 4)]))


def test_results_come_in_the_order_that_is_asked_for() -> None:
    turned = both().only([1, 0])
    assert turned.weights == (7, 4, 9)
    doubled, packed = turned.module(*(torch.ones(2, 16) for _ in range(3)))
    assert doubled.shape == (2, 16)
    assert packed.is_mkldnn
