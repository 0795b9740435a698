"""A block that repeats another is not traced, and the graph is that of a whole trace."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import hotstart
from qualification.captures import differences, traced
from tests.blocks import Block, Stack, compared, given, repeats

SCALE = torch.full((8,), 3.0)


class Sizes(Block):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        return (super().forward(x).reshape(rows * 2, 4) * rows).view(rows, 8)


class TwoResults(Block):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), (x.shape[0] * 2, None)


class Pairs(Stack):
    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x, (rows, _) = block(x)
            x = x * rows
        return x


class WritesInPlace(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).mul_(2).add_(x)


class WritesAPart(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        y[:, 0] = 0
        return y


class AsksForLayout(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x).t()
        return x.t() if x.is_contiguous() else x.contiguous().t()


class Gated(nn.Module):
    """Blocks in blocks: experts of a layer."""

    def __init__(self, _number: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Block(number) for number in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return sum((expert(x) for expert in self.experts), x)


class NamedArguments(Stack):
    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x=x)
        return x


def one_block_many_times(_: int, shared: Block = Block(0)) -> Block:  # noqa: B008
    return shared


# The first block is given the model's input before anything has read it, so the second is traced.
REPEATED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "equal blocks": (lambda: Stack(Block), 2),
    "sizes in a block": (lambda: Stack(Sizes), 2),
    "several results": (lambda: Pairs(TwoResults), 2),
    "writes into what it computed": (lambda: Stack(WritesInPlace), 2),
    "asks for a layout": (lambda: Stack(AsksForLayout), 2),
    "blocks of blocks": (lambda: Stack(Gated), 2 + 3 + 2),
    "arguments by name": (lambda: NamedArguments(Block), 2),
}


@pytest.mark.parametrize(("make", "repeated"), REPEATED.values(), ids=REPEATED)
def test_equal_blocks_are_traced_once(
    make: Callable[[], nn.Module], repeated: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = compared(make(), caplog)
    assert found == ([], repeated)


# --- blocks that differ in one thing --------------------------------------------------------------


class ReadsNumber(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.number


class OtherEps(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.norm.eps = 10.0**-number


class OtherWidth(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.linear = nn.Sequential(nn.Linear(8, 4 + number), nn.Linear(4 + number, 8))


class TiedInTheFirst(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)
        if number == 0:
            self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.one(x))


class TiedToTheModel(Stack):
    """The first block's weight is the model's own, which forward reads before."""

    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        self.head = nn.Linear(8, 8)
        self.blocks[0].linear.weight = self.head.weight

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.head(x))


class TiedTwoByTwo(Stack):
    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        self.blocks[1].linear.weight = self.blocks[0].linear.weight
        self.blocks[3].linear.weight = self.blocks[2].linear.weight


class HookedSecond(Stack):
    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        self.blocks[1].register_forward_hook(lambda _module, _args, y: y * 2)


class HookedInside(Stack):
    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        self.blocks[2].norm.register_forward_pre_hook(lambda _module, args: (args[0] * 2,))


class PatchedThird(Stack):
    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        self.blocks[2].forward = lambda x: x * 3


class Parametrized(Stack):
    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        parametrizations.weight_norm(self.blocks[1].linear)


class ListOfTensors(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.scales = [torch.full((8,), float(number))]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scales[0]


class LongerLists(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.powers = list(range(number))

    def forward(self, x: Tensor) -> Tensor:
        for power in self.powers:
            x = x + power
        return super().forward(x)


@dataclasses.dataclass
class Config:
    factor: float


class OwnConfig(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.config = Config(1.0 + number % 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.config.factor


class OtherMode(Stack):
    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        self.blocks[2].training = False

    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x) * (2 if block.training else 3)
        return x


class GlobalTensor(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * SCALE


# --- blocks that do more than compute -------------------------------------------------------------


class Collects(Stack):
    """The blocks add to a list that forward returns."""

    def forward(self, x: Tensor) -> Any:
        states: list[Tensor] = []
        for block in self.blocks:
            x = block(x, states)
        return x, states


class Collected(Block):
    def forward(self, x: Tensor, states: list[Tensor]) -> Tensor:  # type: ignore[override]
        states.append(x)
        return super().forward(x)


class MarksTensors(Block):
    def forward(self, x: Tensor) -> Tensor:
        again = getattr(x, "seen", 0)
        y = super().forward(x) * (again + 1)
        y.seen = again + 1  # type: ignore[attr-defined]
        return y


class InAutocast(Stack):
    def forward(self, x: Tensor) -> Any:
        x = self.blocks[1](self.blocks[0](x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.blocks[2](x)
        return self.blocks[3](x.float())


class OwnAutocast(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x).float()


class ReturnsMapping(Block):
    def forward(self, x: Tensor) -> Any:
        return {"x": super().forward(x)}


class Mappings(Stack):
    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x)["x"]
        return x


class ReturnsItsInput(Block):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class KeepsInputs(Stack):
    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x, before = block(x)
            x = x + before
        return x


DIFFERENT: dict[str, Callable[[], nn.Module]] = {
    "a number that is read": lambda: Stack(ReadsNumber),
    "a setting of torch's module": lambda: Stack(OtherEps),
    "a width": lambda: Stack(OtherWidth),
    "ties in the first": lambda: Stack(TiedInTheFirst),
    "a tie to the model": lambda: TiedToTheModel(Block),
    "ties between blocks": lambda: TiedTwoByTwo(Block),
    "one block many times": lambda: Stack(one_block_many_times),
    "a hook": lambda: HookedSecond(Block),
    "a hook inside": lambda: HookedInside(Block),
    "a forward of its own": lambda: PatchedThird(Block),
    "a parametrization": lambda: Parametrized(Block),
    "tensors in a list": lambda: Stack(ListOfTensors),
    "the length of a list": lambda: Stack(LongerLists),
    "an object's attribute": lambda: Stack(OwnConfig),
    "the mode": lambda: OtherMode(Block),
    "a global tensor": lambda: Stack(GlobalTensor),
    "a list that is filled": lambda: Collects(Collected),
    "an attribute of a tensor": lambda: Stack(MarksTensors),
    "autocast around": lambda: InAutocast(Block),
    "autocast inside": lambda: Stack(OwnAutocast),
    "a mapping as result": lambda: Mappings(ReturnsMapping),
    "an argument as result": lambda: KeepsInputs(ReturnsItsInput),
    "a write into a part": lambda: Stack(WritesAPart),
}


@pytest.mark.thorough
@pytest.mark.parametrize("make", DIFFERENT.values(), ids=DIFFERENT)
def test_blocks_that_differ_give_the_graph_of_a_whole_trace(
    make: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    different, _ = compared(make(), caplog)
    assert different == []


def test_a_change_of_an_object_ends_repeating(caplog: pytest.LogCaptureFixture) -> None:
    class Counts(Block):
        def forward(self, x: Tensor) -> Tensor:
            counter["calls"] += 1
            return super().forward(x) * counter["calls"]

    counter = {"calls": 0}
    with pytest.raises(hotstart.CaptureError):  # with either: it outlives the call
        compared(Stack(Counts), caplog)
    assert repeats(caplog) == 0


def test_drawn_numbers_are_refused_as_in_a_whole_trace(caplog: pytest.LogCaptureFixture) -> None:
    class Draws(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * random.random()

    with pytest.raises(hotstart.CaptureError):
        compared(Stack(Draws), caplog)


def test_two_models_are_told_apart() -> None:
    first, second = (traced(make(), given(), "whole") for make in (lambda: Stack(Block), other))
    assert list(differences(first, second)) != []


def other() -> nn.Module:
    return Stack(ReadsNumber)


def test_results_are_those_of_the_model() -> None:
    torch.manual_seed(0)
    model = Stack(Block).eval()
    program = hotstart.compile(
        model,
        given().args,
        dynamic_shapes=given().dynamic_shapes,
        options=hotstart.Options(compiler="op_by_op"),
    )
    for rows in (1, 2, 9):
        x = torch.randn(rows, 8)
        assert torch.equal(program(x), model(x))
