from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hotstart import Dim
from hotstart.partition import cut, make_plan
from tests.capturing import captured, compiled, crossing, planned, targets

X = torch.randn(4, 8)
BATCH = {"x": {0: Dim("b", min=2, max=8)}}


@torch.library.custom_op("hotstart_tests::cut", mutates_args=())
def cut_here(x: torch.Tensor) -> torch.Tensor:
    return x + 1


@cut_here.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("hotstart_tests::write", mutates_args=("out",))
def write(x: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(x * 2)


@write.register_fake
def _(x: torch.Tensor, out: torch.Tensor) -> None:
    return None


CUT = ["hotstart_tests::cut"]


def check(model: Callable[..., Any], *args: Any, split_on: Any = CUT, **options: Any) -> Any:
    """Compile op by op, check that it gives what the model gives, and return the pieces."""
    made = compiled(model, *args, split_on=split_on, **options)(*args)
    torch.testing.assert_close(made, model(*args))
    plan = planned(model, *args, split_on=split_on, **options)
    assert all(isinstance(value, torch.Tensor) for value in crossing(plan))
    return plan.pieces


# --- splitting ops --------------------------------------------------------------------------------


def test_a_splitting_op_is_a_piece_of_its_own() -> None:
    pieces = check(lambda x: cut_here(x * 2) * 3, X)
    assert [p.kind for p in pieces] == ["compiled", "inlined", "compiled"]
    assert [p.name for p in pieces] == ["piece_0", "piece_1", "piece_2"]
    assert [targets(p)[0] for p in pieces] == ["mul", "cut.default", "mul"]


def test_consecutive_splitting_ops_stay_in_one_piece() -> None:
    pieces = check(
        lambda x: torch.relu(cut_here(cut_here(x * 2))) * 3, X, split_on=[*CUT, "aten::relu"]
    )
    assert [len(p.nodes) for p in pieces] == [1, 3, 1]


def test_a_name_alone_is_taken_as_a_list_of_one() -> None:
    assert len(check(lambda x: cut_here(x * 2) * 3, X, split_on=CUT[0])) == 3


def test_blocks_and_operators_combine() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(cut_here(torch.relu(self.a(x)))) + x

    model = nn.Sequential(Block(), Block(), Block())
    pieces = check(model, X, split_on=["auto", *CUT])
    assert [p.kind for p in pieces] == ["compiled", "inlined", "compiled"] * 3
    assert len({p.digest for p in pieces}) == 3
    assert len(check(model, X, split_on=CUT)) == 7


def test_every_node_is_in_one_piece_and_in_order() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        a = x + 1
        b = cut_here(a)
        a.add_(1)
        c = cut_here(b * a)
        return c * a

    pieces = check(model, X)
    graph, _ = captured(model, X)
    order = {node.name: index for index, node in enumerate(graph.graph.nodes)}
    numbers = [order[node.name] for piece in pieces for node in piece.nodes]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == len(order) - 2


def test_cutting_changes_nothing_of_the_graph() -> None:
    graph, _ = captured(lambda x: torch.cat(cut_here(x).split(2)), X)
    before = str(graph.graph)
    first = make_plan(*cut(graph, CUT))
    second = make_plan(*cut(graph, CUT))
    assert str(graph.graph) == before
    assert [p.digest for p in first.pieces] == [p.digest for p in second.pieces]


def test_inputs_and_outputs_are_what_flows() -> None:
    def model(x: torch.Tensor) -> Any:
        a = x * 2
        b = cut_here(a)
        return b + a, a.sum() * 0 + b

    first, middle, last = check(model, X)
    assert [len(p.inputs) for p in (first, middle, last)] == [1, 1, 2]
    assert [len(p.outputs) for p in (first, middle, last)] == [1, 1, 2]


# --- tuples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.cat(x.split(2)),
        lambda x: x.chunk(2)[1] + x.chunk(2)[-1],
        lambda x: torch.topk(x, 2)[0] * torch.topk(x, 2).indices,
        lambda x: torch.stack(torch.unbind(x)) + x,
        lambda x: torch.cat([x.split(2)[-2], *x.split(2)]),
        lambda x: torch.stack(x.split(2), dim=0).sum(0),
        lambda x: torch.max(x, 1).values,
    ],
)
@pytest.mark.parametrize("producer_splits", [True, False])
def test_tuples_never_cross_a_cut(model: Callable[..., Any], producer_splits: bool) -> None:
    def around(x: torch.Tensor) -> Any:
        parts = x.split(2)
        y = cut_here(x)
        return model(y) * 2, torch.cat(parts), parts[-1] + y[:2]

    if not producer_splits:
        check(around, X)
        return
    split = ["aten::split", "aten::chunk", "aten::topk", "aten::unbind", "aten::max"]
    graph = str(captured(around, X)[0].graph)
    check(around, X, split_on=[name for name in split if name.removeprefix("aten::") in graph])


def test_items_stay_with_the_op_that_made_the_tuple() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        parts = torch.ops.aten.split.Tensor(x, 2)
        y = cut_here(x)
        return y[:2] * parts[0] + parts[-1] + parts[0]

    first, _, last = check(model, X)
    assert targets(first) == ["split.Tensor", "getitem", "getitem"]
    assert len(first.views) == 2
    assert targets(last)[0] == "getitem"


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        out, (h, c) = self.lstm(cut_here(x))
        return cut_here(out) + h[-1][:, None], (h, c)


def test_an_lstm_is_cut_around() -> None:
    check(Recurrent().eval(), torch.randn(2, 3, 8))


def test_a_tuple_that_holds_none_does_not_cross_a_cut() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out, _ = self.attention(x, x, x, need_weights=False)
            return cut_here(out)

    model = Attends().train()
    check(model, torch.randn(2, 3, 8))
    check(
        model, torch.randn(2, 3, 8), split_on=["torch.nn.functional.multi_head_attention_forward"]
    )


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        lambda x, y: y.view(x.size()),
        lambda x, y: y.reshape((*x.size()[:1], 2, 4)).sum(1),
        lambda x, y: y.view(*x.shape[:-1], -1),
        lambda x, y: y.view((x.size(0), -1)),
        lambda x, y: y[: x.size(0) - 1],
        lambda x, y: y[:, : x.shape[1] // 2],
        lambda x, y: y.expand(size=(3, *x.shape)),
        lambda x, y: y.reshape(x.numel()),
        lambda x, y: y * x.numel() / x.size(0),
        lambda x, y: torch.zeros(x.size(), dtype=y.dtype) + y,
        lambda x, y: y.new_zeros(2 * x.size(0) + 1, x.shape[-1]),
        lambda x, y: F.pad(y, (0, x.size(0), 1, x.size(0) % 3)),
        lambda x, y: torch.arange(x.size(0))[:, None] + y,
        lambda x, y: y.split([1, x.size(0) - 1])[1],
        lambda x, y: torch.full(x.shape, float(x.size(0))) + y,
        lambda x, y: y + max(x.size(0), 2),
    ],
)
def test_sizes_never_cross_a_cut(model: Callable[..., Any]) -> None:
    def around(x: torch.Tensor) -> torch.Tensor:
        return cut_here(model(x * 2, cut_here(x) + 1))

    plan = planned(around, X, split_on=CUT, dynamic=BATCH)
    assert len(plan.pieces) >= 4
    assert all(isinstance(value, torch.Tensor) for value in crossing(plan))
    program = compiled(around, X, split_on=CUT, dynamic=BATCH)
    for batch in (2, 5, 8):
        x = torch.randn(batch, 8)
        torch.testing.assert_close(program(x), around(x))


def test_pieces_know_the_axes_they_depend_on() -> None:
    def model(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cut_here(y * 2).sum() + cut_here(x.view(x.size(0) * 2, 4)).sum()

    dynamic = {"x": {0: Dim("b", min=2, max=8)}, "y": {0: Dim("t", min=2, max=8)}}
    plan = planned(model, X, X, split_on=CUT, dynamic=dynamic)
    assert [set(p.axes) for p in plan.pieces] == [{"t"}, {"t"}, {"t", "b"}, {"b"}, {"b"}]


# --- what is not separated ------------------------------------------------------------------------


def test_allocations_stay_with_the_op_that_is_cut_at() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        first, second = torch.empty_like(x), x.new_empty(4, 8)
        write(x, first)
        write(first, second)
        return second * 2

    pieces = check(model, X, split_on=["hotstart_tests::write"])
    assert [p.kind for p in pieces] == ["inlined", "compiled"]


def test_allocations_between_two_cuts_join_the_next_piece() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        y = cut_here(x * 2)
        out = torch.empty_like(y)
        write(y, out)
        return out + 1

    pieces = check(model, X, split_on=[*CUT, "hotstart_tests::write"])
    assert [p.kind for p in pieces] == ["compiled", "inlined", "inlined", "compiled"]
    assert targets(pieces[2]) == ["empty_like", "write.default"]


def test_an_allocation_at_the_end_joins_the_last_piece() -> None:
    def model(x: torch.Tensor) -> Any:
        y = cut_here(x * 2)
        return y, torch.empty_like(y)

    plan = planned(model, X, split_on=CUT)
    assert [p.kind for p in plan.pieces] == ["compiled", "inlined"]


def within_autocast(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return cut_here(x @ x.t()).float()


def within_inference_mode(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return cut_here(x + 1) * 2


def within_vmap(x: torch.Tensor) -> torch.Tensor:
    return torch.vmap(lambda row: torch.relu(row.sin()) + 1)(x)


def within_sdpa_kernel(x: torch.Tensor) -> torch.Tensor:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        x = x[None, None] * 2
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(
    ("region", "split_on"),
    [
        (within_autocast, CUT),
        (within_inference_mode, CUT),
        (within_vmap, ["aten::relu"]),
        (within_sdpa_kernel, ["aten::scaled_dot_product_attention"]),
    ],
)
def test_a_region_is_opened_and_closed_in_one_piece(
    region: Callable[..., Any], split_on: list[str]
) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(region(x))

    plan = planned(model, X, split_on=split_on)
    assert len(plan.pieces) == 1


def test_views_of_written_memory_are_not_separated() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        base = x * 2
        view = base[0]
        y = cut_here(x)
        view.add_(1)
        z = cut_here(y)
        return base + z

    pieces = check(model, X)
    assert [targets(p).count("cut.default") for p in pieces] == [1, 1, 0]


def test_a_tensor_that_is_written_under_two_names_is_not_separated() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(x)
        second = first.add_(1)
        y = cut_here(x)
        second.mul_(2)
        return first + second + y

    assert len(check(model, X)) == 1


def test_memory_that_is_written_under_one_name_crosses_cuts() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        h = x * 2
        for _ in range(3):
            h += cut_here(h)
        return h

    assert len(check(model, X)) == 7


def test_views_that_nobody_writes_to_cross_cuts() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        base = x * 2
        view = base[0]
        return cut_here(x) + base + view

    assert len(check(model, X)) == 3


# --- where a piece came from ----------------------------------------------------------------------


def test_layers_say_where_a_piece_came_from() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(8, 8)
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
                for _ in range(3)
            )
            self.head = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            for layer in self.layers:
                x = layer(x)
            return self.head(cut_here(x))

    plan = planned(Model(), X, split_on=["auto", *CUT])
    assert [p.layers for p in plan.pieces] == [
        ("embed",),
        ("layers.0",),
        ("layers.1",),
        ("layers.2",),
        (),
        ("head",),
    ]
    plan = planned(Model(), X, split_on=CUT)
    assert plan.pieces[0].layers == ("embed", "layers.0", "layers.1", "layers.2")
