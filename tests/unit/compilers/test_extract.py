"""Expressions over sizes in the modules that compilers are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from torch.fx.proxy import GraphAppendingTracer

from hotstart._torch.graphs.symbols import expression, fake_mode, make_symbols
from hotstart._torch.graphs.values import evaluate


def half_steps(n: Any) -> Any:
    return torch.arange(0.5, n, 0.7).shape[0]


def rounded_down(n: Any) -> Any:
    return math.trunc(n * 0.3)


def larger(n: Any) -> Any:
    return torch.sym_max(n // 3, 4)


@pytest.mark.parametrize("size", [half_steps, rounded_down, larger])
def test_a_size_is_computed_in_the_graph_as_it_is_in_the_model(size: Callable[[Any], Any]) -> None:
    symbols = make_symbols({"n": (2, 64, 8)})
    with fake_mode(symbols.env):
        expr = expression(size(symbols.integer(symbols.by_name["n"])))
    assert expr.free_symbols
    graph = fx.Graph()
    proxy = fx.Proxy(graph.placeholder("n"), GraphAppendingTracer(graph))
    graph.output(evaluate(expr, {symbols.by_name["n"]: proxy}).node)
    module = fx.GraphModule(torch.nn.Module(), graph)
    assert [module(n) for n in (2, 7, 8, 64)] == [size(n) for n in (2, 7, 8, 64)]
