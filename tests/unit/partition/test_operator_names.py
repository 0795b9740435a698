from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx

from hotstart.errors import PartitionError
from hotstart.partition.operator_names import known_among, name_given, names_of
from tests.capturing import planned

X = torch.randn(4, 8)


@torch.library.custom_op("hotstart_tests::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@double.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def by_cond(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))


RELU = [torch.relu, F.relu, torch.ops.aten.relu, torch.ops.aten.relu.default, torch.Tensor.relu]
RELU_NAMES = [
    "aten::relu", "aten::relu.default", "aten.relu", "torch.ops.aten.relu",
    "torch.ops.aten.relu.default", "torch.relu", "torch.nn.functional.relu", "relu",
]  # fmt: skip


def split(function: Callable[..., Any], *args: Any, split_on: Any) -> list[str]:
    """The kinds of the pieces of `function(x + 1) * 3`."""

    def model(*args: torch.Tensor) -> torch.Tensor:
        return function(args[0] + 1, *args[1:]) * 3

    return [piece.kind for piece in planned(model, *(args or (X,)), split_on=split_on).pieces]


@pytest.mark.parametrize("spelled", RELU)
@pytest.mark.parametrize("given", [*RELU_NAMES, torch.relu, F.relu, torch.ops.aten.relu,
                                   torch.ops.aten.relu.default])  # fmt: skip
def test_an_operator_is_found_however_graph_and_user_spell_it(spelled: Any, given: Any) -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    method = spelled is torch.Tensor.relu
    node = graph.call_method("relu", (x,)) if method else graph.call_function(spelled, (x,))
    assert name_given(given) in names_of(node)
    assert "aten::sigmoid" not in names_of(node)


@pytest.mark.parametrize("spelled", [torch.relu, F.relu, torch.ops.aten.relu.default])
@pytest.mark.parametrize("given", RELU_NAMES)
def test_a_graph_is_cut_at_an_operator_by_any_name(spelled: Any, given: str) -> None:
    assert split(lambda x: spelled(x), split_on=[given]) == ["compiled", "inlined", "compiled"]


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (lambda x: x.relu(), "aten::relu"),
        (lambda x: x @ x.t(), "aten::matmul"),
        (lambda x: x @ x.t(), operator.matmul),
        (lambda x: torch.matmul(x, x.t()), "operator.matmul"),
        (lambda x: x % 2, "aten::remainder"),
        (lambda x: x / 2, "aten::div"),
        (lambda x: x / 2, "aten::div.Tensor"),
        (lambda x: ~(x > 0), "aten::bitwise_not"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), F.scaled_dot_product_attention),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "aten::scaled_dot_product_attention"),
        (lambda x: F.softmax(x, -1), "aten::softmax"),
        (lambda x: F.max_pool1d(x, 2), "torch.nn.functional.max_pool1d"),
        (double, "hotstart_tests::double"),
        (double, "hotstart_tests.double"),
        (double, "torch.ops.hotstart_tests.double"),
        (double, "hotstart_tests::double.default"),
        (double, double),
        (double, torch.ops.hotstart_tests.double),
        (double, torch.ops.hotstart_tests.double.default),
    ],
)
def test_methods_operators_and_custom_ops_are_found(
    function: Callable[..., Any], given: Any
) -> None:
    assert "inlined" in split(function, split_on=[given])


@pytest.mark.parametrize("given", ["cond", "higher_order::cond", torch.ops.higher_order.cond])
def test_higher_order_ops_are_found_and_keep_their_sub_graphs(given: Any) -> None:
    plan = planned(lambda x: by_cond(x + 1) * 3, X, split_on=[given])
    assert [len(piece.nodes) for piece in plan.pieces] == [3, 4, 1]
    assert all(node.op != "get_attr" for piece in plan.pieces for node in piece.outputs)


def test_an_overload_names_only_itself_where_the_graph_says_which() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.add.Tensor(torch.ops.aten.add.Scalar(x, 1), x)

    plan = planned(model, X, split_on=["aten::add.Scalar"])
    assert [piece.kind for piece in plan.pieces] == ["inlined", "compiled"]
    assert len(planned(model, X, split_on=["aten::add"]).pieces) == 1


def test_an_unknown_name_is_an_error_that_lists_the_graphs_operators() -> None:
    with pytest.raises(PartitionError, match=r"is 'aten::sigmoid'.*aten::add, aten::mul") as caught:
        split(torch.relu, split_on=["aten::sigmoid"])
    assert "aten::relu" in str(caught.value)
    assert "aten::relu.default" not in str(caught.value)


@pytest.mark.parametrize("name", [3, None, X])
def test_what_names_no_operator_is_refused(name: Any) -> None:
    with pytest.raises(PartitionError, match="names no operator; takes 'auto', names such as"):
        split(torch.relu, split_on=[name])


def test_operators_that_a_graph_does_not_have_are_left_out_of_what_to_split_at() -> None:
    graph = fx.symbolic_trace(lambda x: torch.relu(x).sin()).graph
    present = ["auto", "aten::relu", torch.ops.aten.sin, "torch.sin", F.relu]
    absent = ["aten::bmm", "aten::bmm.default", torch.bmm, "torch.nn.functional.gelu", "bmm"]
    wrong = ["aten::no_such", "no_such", "no::such", "torch.no_such"]
    assert known_among([*present, *absent, *wrong], graph.nodes) == [*present, *wrong]
    assert known_among("auto", graph.nodes) == ["auto"]
