"""What is made of weights and no statement reads is left out of generated code."""

from __future__ import annotations

import ast
from typing import Any

import sympy
import torch
from torch import fx

from hotstart._torch.inductor.compile_fx import InductorOutput
from hotstart._torch.packing.recipes import BySize, Recipe
from hotstart.compilers.inductor.unread import without_unread

CODE = """
def call(args):
    x, weight, one, two, three = args
    args.clear()
    assert_size_stride(x, (2, 2), (2, 1))
    assert_size_stride(one, (2, 2), (2, 1))
    assert_size_stride_grouped(x, one, two)
    made = product(x, weight, two)
    del one, weight
    del three
    return (made,)
"""


def doubled(*positions: int) -> Recipe:
    """A recipe that doubles each of some weights."""
    graph = fx.Graph()
    weights = [graph.placeholder(f"weight_{n}") for n in range(len(positions))]
    by = torch.ops.aten.mul.Scalar
    graph.output(tuple(graph.call_function(by, (weight, 2.0)) for weight in weights))
    module = fx.GraphModule(torch.nn.Module(), graph)
    return Recipe(module, None, positions, len(positions))


def output(**given: Any) -> InductorOutput:
    """What belongs to the code: two inputs that it takes as they are, three that are made."""
    return InductorOutput(
        source="",
        kernels={},
        constants={},
        outputs=1,
        strides=(None,),
        around=(),
        written=(),
        kept=(0, 1),
        recipes=(doubled(2, 3), doubled(4)),
        **given,
    )


def function(code: str = CODE) -> ast.FunctionDef:
    (call,) = ast.parse(code).body
    assert isinstance(call, ast.FunctionDef)
    return call


def test_arguments_and_recipes_go_together() -> None:
    call = function()
    left = without_unread(output(), call)
    assert [recipe.weights for recipe in left.recipes] == [(3,)]
    assert ast.unparse(call) == (
        "def call(args):\n"
        "    x, weight, two = args\n"
        "    args.clear()\n"
        "    assert_size_stride(x, (2, 2), (2, 1))\n"
        "    made = product(x, weight, two)\n"
        "    del weight\n"
        "    return (made,)"
    )


def test_what_is_read_stays() -> None:
    code = CODE.replace("product(x, weight, two)", "product(x, weight, one, two, three)")
    given = output()
    assert without_unread(given, function(code)) is given


def test_weights_for_other_sizes_are_counted_anew() -> None:
    by_size = BySize(sympy.Symbol("s"), 1, (0, 1), ({1: doubled(3)},))
    left = without_unread(output(by_size=by_size), function())
    assert left.by_size is not None
    assert list(left.by_size.instead[0]) == [0]
