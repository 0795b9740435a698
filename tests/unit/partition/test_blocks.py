from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hotstart.partition import blocks
from tests.capturing import captured, compiled, planned

X = torch.randn(4, 8)


class Block(nn.Module):
    def __init__(self, scale: Any = 2.0, width: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, width), nn.Linear(width, 8)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(self.norm(x)))) * self.scale + x


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def counts(model: Any, *args: Any) -> tuple[int, int]:
    """How many pieces, and how many of them are different."""
    plan = planned(model, *(args or (X,)))
    return len(plan.pieces), len(plan.different)


@pytest.mark.parametrize("depth", [2, 3, 12])
def test_different_pieces_do_not_grow_with_depth(depth: int) -> None:
    assert counts(Chain(*(Block() for _ in range(depth)))) == (depth + 2, 2)


def test_a_model_without_repeats_is_one_piece() -> None:
    assert counts(Chain(Block())) == (1, 1)
    assert counts(nn.Sequential(nn.Linear(8, 8), nn.ReLU())) == (1, 1)
    assert counts(lambda x: x * 2) == (1, 1)


def test_blocks_that_differ_are_blocks_of_their_own() -> None:
    layers = [Block(2.0), Block(3.0), Block(2.0), Block(2.0, width=16)]
    plan = planned(Chain(*layers), X)
    names = [piece.digest for piece in plan.pieces]
    assert len(plan.pieces) == 6
    assert names[1] == names[3]
    assert len(set(names)) == 4


def test_a_class_none_of_whose_modules_repeat_is_left_alone() -> None:
    assert counts(Chain(*(Block(width=8 * n) for n in (1, 2, 3)))) == (1, 1)


def test_nested_stages_are_cut_at_the_outermost_repeats() -> None:
    def stage() -> nn.Module:
        return nn.Sequential(Block(), Block())

    assert counts(Chain(stage(), stage(), stage())) == (5, 2)


def test_stages_that_differ_are_cut_at_the_blocks_inside_them() -> None:
    class Narrow(nn.Sequential):
        pass

    class Wide(nn.Sequential):
        pass

    model = Chain(Narrow(Block(), Block()), Wide(*(Block(width=16) for _ in range(3))))
    assert counts(model) == (7, 3)


def test_one_module_called_many_times_is_a_block_each_time() -> None:
    shared = Block()
    plan = planned(Chain(shared, shared, shared), X)
    assert (len(plan.pieces), len(plan.different)) == (5, 2)
    paths = [piece.layers for piece in plan.pieces[1:4]]
    assert paths == [("layers.0",), ("layers.1",), ("layers.2",)]


def test_one_path_called_many_times_is_a_block_each_time() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = self.block(x)
            return x

    assert counts(Loop()) == (3, 1)


def test_encoder_and_decoder_have_blocks_of_their_own() -> None:
    class CrossBlock(Block):
        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(x) + memory.mean(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleList(Block() for _ in range(3))
            self.decoder = nn.ModuleList(CrossBlock() for _ in range(3))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            for layer in self.encoder:
                x = layer(x)
            for layer in self.decoder:
                y = layer(y, x)
            return y

    assert counts(Model(), X, X) == (6, 2)


def test_a_few_nodes_between_blocks_go_with_the_block_that_follows() -> None:
    class Glued(Chain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x * 0.5)
            return x

    plan = planned(Glued(*(Block() for _ in range(5))), X)
    assert len(plan.pieces) == 6
    assert len(plan.different) == 3


@pytest.mark.parametrize(
    "take", [lambda x, i: x[i], lambda x, i: x[:, i], lambda x, i: x.select(0, i)]
)
def test_what_each_block_takes_its_own_part_of_makes_no_block_another(take: Any) -> None:
    class Added(Chain):
        def forward(self, x: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
            for i, layer in enumerate(self.layers):
                x = layer(x + take(parts, i))
            return x

    args = (X, torch.randn(8, 8))
    shallow, deep = (Added(*(Block() for _ in range(depth))) for depth in (3, 6))
    assert len(planned(shallow, *args).different) == len(planned(deep, *args).different)
    torch.testing.assert_close(compiled(deep, *args)(*args), deep(*args))


def test_many_nodes_between_blocks_are_a_piece() -> None:
    class Glued(Chain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(torch.tanh(torch.sigmoid(x * 0.5 + 1) - 1))
            return x

    assert counts(Glued(*(Block() for _ in range(4)))) == (8, 2)


def test_small_modules_and_modules_that_call_no_other_are_left_alone() -> None:
    class Norm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * 2 + 1

    assert counts(nn.Sequential(Norm(), nn.ReLU(), Norm(), nn.Sigmoid(), Norm())) == (1, 1)


def test_a_large_module_that_calls_no_other_is_a_block() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(8):
                x = torch.tanh(x @ self.weight) + x
            return x

    assert counts(nn.Sequential(Plain(), Plain(), Plain())) == (3, 1)


def test_a_functions_blocks_are_found() -> None:
    layers = nn.ModuleList(Block() for _ in range(3))

    def model(x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            x = layer(x)
        return x

    plan = planned(model, X)
    assert [piece.layers for piece in plan.pieces] == [("layers.0",), ("layers.1",), ("layers.2",)]
    assert len(plan.different) == 1


def test_blocks_give_the_models_results() -> None:
    model = Chain(Block(), Block(3.0), Block())
    torch.testing.assert_close(compiled(model, X)(X), model(X))


@pytest.mark.thorough
def test_each_node_of_a_block_is_hashed_once_to_find_it() -> None:
    hashed: list[int] = []

    def nodes_hashed(depth: int) -> int:
        graph, _ = captured(Chain(*(Block() for _ in range(depth))), X)
        nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
        hashed.clear()

        def digest(run: Any) -> Any:
            hashed.append(len(run))
            return tuple(str(node.target) for node in run)

        found = blocks.repeated_blocks(nodes, digest)
        assert len(set(found.values())) == depth
        return sum(hashed)

    assert nodes_hashed(24) == nodes_hashed(3)


def test_layers_of_a_model_with_a_getattr_of_its_own_have_the_names_of_its_modules() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
            self.head = nn.Linear(8, 2)

        def __getattr__(self, name: str) -> Any:
            return super().__getattr__(name)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for each in self.down:
                x = each(x).relu()
            return self.head(x)

    plan = planned(Model(), X, split_on=["aten::relu"])
    found = [piece.layers for piece in plan.pieces if piece.layers]
    assert found == [("down.0",), ("down.1",), ("head",)]
