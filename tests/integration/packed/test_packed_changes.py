"""What depends on weights alone is made again when they change."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.integration.packed.models import ALWAYS, Mlp, same

pytestmark = pytest.mark.usefixtures("kept_pieces")


@pytest.mark.parametrize("change", ["copy", "load_state_dict", "assign", "add", "data_set"])
def test_changed_weights_are_packed_again(mlp: Mlp, program: hotstart.Program, change: str) -> None:
    x = torch.randn(5, 32)
    before = program(x)
    other = Mlp().eval()
    with torch.no_grad():
        match change:
            case "copy":
                mlp.up.weight.copy_(other.up.weight)
            case "load_state_dict":
                mlp.load_state_dict(other.state_dict())
            case "assign":
                mlp.load_state_dict(other.state_dict(), assign=True)
            case "add":
                mlp.down.weight.add_(1.0)
            case "data_set":
                mlp.up.weight.data = other.up.weight.detach().clone()
    same(mlp, program, x)
    assert not torch.equal(before, program(x))


def test_what_is_not_noticed_is_refreshed(mlp: Mlp, program: hotstart.Program) -> None:
    x = torch.randn(5, 32)
    program(x)
    mlp.up.weight.data.mul_(2.0)
    program.refresh()
    same(mlp, program, x)


def test_only_what_was_made_of_changed_weights_is_made_again(
    mlp: Mlp, program: hotstart.Program
) -> None:
    x = torch.randn(5, 32)
    program(x)
    kept = program._binding._prepared
    with torch.no_grad():
        mlp.up.weight.mul_(2.0)
    program(x)
    new = program._binding._prepared
    assert kept is not None
    assert new is not None
    assert kept is not new
    assert len(kept._made.keys() & new._made.keys()) == len(kept._made)
    assert sum(new._made[key] is made for key, made in kept._made.items()) == 1


@pytest.mark.thorough
def test_a_weight_that_is_also_read_unpacked_stays_right() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(40, 16)
            self.head = nn.Linear(16, 40, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embedding(tokens))

    torch.manual_seed(0)
    model = Tied().eval()
    tokens = torch.randint(0, 40, (3, 7))
    program = hotstart.compile(model, (tokens,), options=ALWAYS)
    same(model, program, tokens)
    with torch.no_grad():
        model.embedding.weight.mul_(3.0)
    same(model, program, tokens)


@pytest.mark.thorough
def test_a_result_that_follows_from_weights_alone_is_new_in_every_call() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * self.scale, self.scale.exp()

    model = Constant().eval()
    x = torch.randn(3, 8)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    program(x)[1].zero_()
    same(model, program, x)
    with torch.no_grad():
        model.scale.add_(1.0)
    same(model, program, x)


@pytest.mark.thorough
def test_a_weight_that_forward_writes_to_is_left_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("seen", torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1.0)
            return self.linear(x) + self.seen.exp()

    torch.manual_seed(0)
    model, other = Counting().eval(), Counting().eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(3, 8)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(program(x), other(x))


def test_replaced_weights_are_not_kept_alive(mlp: Mlp, program: hotstart.Program) -> None:
    x = torch.randn(5, 32)
    program(x)
    old = weakref.ref(mlp.up.weight)
    mlp.load_state_dict(Mlp().state_dict(), assign=True)
    program(x)
    gc.collect()
    assert old() is None


@pytest.mark.thorough
def test_what_another_program_writes_is_noticed() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(8))

        def bump(self, x: Tensor) -> Tensor:
            self.scale.add_(x)
            return x + 1

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale.exp()

    model = Counting().eval()
    x = torch.randn(8)
    writes = hotstart.compile(model.bump, (x,))
    reads = hotstart.compile(model, (x,))
    for _ in range(3):
        same(model, reads, x)
        writes(x)
    both = hotstart.compile(
        model,
        calls={"run": hotstart.Call(args=(x,)), "bump": hotstart.Call(args=(x,), method="bump")},
    )
    for _ in range(3):
        same(model, both["run"], x)
        both["bump"](x)


@pytest.mark.thorough
def test_batch_normalisation_that_a_program_trains_is_noticed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    x = torch.randn(2, 3, 9, 9)
    trains = hotstart.compile(model.train(), (x,))
    runs = hotstart.compile(model.eval(), (x,), options=ALWAYS)
    for _ in range(2):
        same(model, runs, x)
        model.train()
        trains(x * 2 + 1)
        model.eval()


@pytest.mark.thorough
def test_results_of_weights_alone_are_laid_out_as_in_eager() -> None:
    class Results(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            made = self.a.sin()
            return made, made[0], self.a.cos().expand(2, 8, 8), x.sin()

    model = Results().eval()
    x = torch.randn(3)
    program = hotstart.compile(model, (x,))
    same(model, program, x)
    made, row, expanded, _ = program(x)
    made.zero_()
    assert not row.any()
    assert expanded.stride() == (0, 8, 1)
