"""Repeated blocks whose objects, arguments or surroundings differ: the graph is a whole trace's."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hotstart._torch.blocks.repeats import tracing_repeats_once
from hotstart._torch.dynamo.layout_reads import LayoutReads
from hotstart._torch.dynamo.other_names import OtherNames
from hotstart.capture.alike_blocks import counterparts
from qualification.captures import traced
from tests.blocks import BLOCKS, Block, Stack, compared, given


@dataclasses.dataclass
class Settings:
    factor: float


class Shelf:
    """An object that takes any attribute."""

    item: Any


SPECIAL = Settings(9.0)
TENSORS = [torch.full((8,), float(number)) for number in range(BLOCKS)]


class Starts(Stack):
    """A stack whose first block is given a tensor that forward computed, as the others are."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x * 1)


# --- objects of a block ---------------------------------------------------------------------------


class SharedTwoByTwo(Block):
    SETTINGS = (Settings(1.0), Settings(2.0))

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.settings = self.SETTINGS[number // 2]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.settings.factor


class SharedByAll(SharedTwoByTwo):
    SETTINGS = (Settings(1.5),) * 2


class IsSpecial(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.settings = SPECIAL if number == 2 else Settings(9.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.settings is SPECIAL else 3)


class OneListOrTwo(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.one = [1]
        self.other = self.one if number == 2 else [1]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.one is self.other else 3)


class MissesAnAttribute(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.shelf = Shelf()
        if number > 1:
            self.shelf.item = 3.0

    def forward(self, x: Tensor) -> Tensor:
        try:
            factor = self.shelf.item
        except AttributeError:
            factor = 1.0
        return super().forward(x) * factor


class AsksForAShape(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.kept = [torch.zeros(number + 1)]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.kept[0].shape[0]


class NegativeZero(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.factor = -0.0 if number > 1 else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor


class EqualTuples(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.factors = (2.0,) if number > 1 else (2,)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factors[0]


# --- ways from a block to others ------------------------------------------------------------------


class KnownTensors(Starts):
    """Each block keeps a tensor in a list that forward read before by another name."""

    def forward(self, x: Tensor) -> Any:
        for tensor in TENSORS:
            x = x + tensor
        return super().forward(x)


class KeepsTensor(Block):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.kept = [TENSORS[number]]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.kept[0]


class Linked(Starts):
    """Each block knows the one before it, and all of them."""

    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__(block)
        for number, each in enumerate(self.blocks):
            each.before = [self.blocks[max(number - 1, 0)]]
            each.shelf = self.shelf = Shelf()
            self.shelf.item = self


class UsesTheBlockBefore(Block):
    before: list[Block]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.before[0].linear(x)


class LooksForItself(Block):
    shelf: Shelf

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        for number, block in enumerate(self.shelf.item.blocks):
            if block is self:
                y = y * (number + 2)
        return y


# --- what is done around blocks -------------------------------------------------------------------


class SetBefore(Starts):
    """Forward sets an attribute of each block before it calls the first."""

    def forward(self, x: Tensor) -> Any:
        for number, block in enumerate(self.blocks):
            block.factor = float(number)
        x = super().forward(x)
        for block in self.blocks:
            block.factor = 0.0
        return x


class HasFactor(Block):
    factor = 0.0

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.factor = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor


class ReadsWeightsOfTheFirst(Stack):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + self.blocks[0].norm.bias)


class WithoutCachedCasts(Stack):
    def forward(self, x: Tensor) -> Any:
        for cached in (True, True, False, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cached):
                x = self.blocks[2](x) if cached else self.blocks[3](x)
        return x


class AsksForCache(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if torch.is_autocast_cache_enabled() else 3)


# --- arguments ------------------------------------------------------------------------------------


class Given(Stack):
    """Blocks that are given one of two tensors of the model, or a number."""

    def __init__(self, block: Callable[[int], nn.Module], *others: float) -> None:
        super().__init__(block)
        self.others = others
        self.one = nn.Parameter(torch.ones(8), requires_grad=False)
        self.register_buffer("other", torch.ones(8))
        self.one.factor, self.other.factor = 2.0, 3.0  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Any:
        x = x * 1
        others = self.others or (self.one, self.one, self.other, self.other)
        for block, other in zip(self.blocks, others, strict=True):
            x = block(x, other)
        return x


class AsksForParameter(Block):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * (2 if isinstance(y, nn.Parameter) else 3)


class AsksForAttribute(Block):
    def forward(self, x: Tensor, y: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x) * y.factor


class Times(Block):
    def forward(self, x: Tensor, y: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x) * y


class GivenAWeightOfOne(Stack):
    def forward(self, x: Tensor) -> Any:
        x = x * 1
        for block in self.blocks:
            x = block(x, self.blocks[2].linear.weight)
        return x


class AsksForItsWeight(Block):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * (2 if y is self.linear.weight else 3)


class SqueezesItsArgument(Stack):
    """The second call is given what the first made of its argument, in place."""

    def forward(self, x: Tensor) -> Any:
        rows = (x[:1] * 1, x[0] * 1, x[:1] * 1, x[0] * 1)
        return [block(row) for block, row in zip(self.blocks, rows, strict=True)]


class Squeezes(Block):
    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            x.squeeze_(0)
        return x * 2


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "objects that two share": (lambda: Starts(SharedTwoByTwo), 2),
    "an object that all share": (lambda: Starts(SharedByAll), 3),
    "a global object": (lambda: Starts(IsSpecial), 0),
    "one list or two": (lambda: Starts(OneListOrTwo), 2),
    "an attribute that is missing": (lambda: Starts(MissesAnAttribute), 0),
    "a shape in a list": (lambda: Starts(AsksForAShape), 0),
    "a negative zero": (lambda: Starts(NegativeZero), 2),
    "equal tuples": (lambda: Starts(EqualTuples), 2),
    "tensors known before": (lambda: KnownTensors(KeepsTensor), 0),
    "the block before": (lambda: Linked(UsesTheBlockBefore), 0),
    "a block's own number": (lambda: Linked(LooksForItself), 0),
    "attributes set before": (lambda: SetBefore(HasFactor), 0),
    "weights read before": (lambda: ReadsWeightsOfTheFirst(Block), 2),
    "a mode that is asked for": (lambda: WithoutCachedCasts(AsksForCache), 1),
    "a parameter or a buffer": (lambda: Given(AsksForParameter), 2),
    "attributes of arguments": (lambda: Given(AsksForAttribute), 2),
    "a negative zero as an argument": (lambda: Given(Times, 0.0, 0.0, -0.0, -0.0), 2),
    "a block's weight for all": (lambda: GivenAWeightOfOne(AsksForItsWeight), 2),
    "arguments that change": (lambda: SqueezesItsArgument(Squeezes), 1),
}


@pytest.mark.thorough
@pytest.mark.parametrize(("make", "repeated"), MODELS.values(), ids=MODELS)
def test_graphs_are_those_of_a_whole_trace(
    make: Callable[[], nn.Module], repeated: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert compared(make(), caplog) == ([], repeated)


def test_an_array_as_result_stays_one(caplog: pytest.LogCaptureFixture) -> None:
    class Arrays(Block):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).numpy()

    class Converts(Stack):
        def forward(self, x: Tensor) -> Any:
            for block in self.blocks:
                x = torch.from_numpy(block(x) * 2)
            return x

    model = Converts(Arrays)
    caplog.set_level(logging.DEBUG, "hotstart")
    (once,), (whole,) = (traced(model, given(), mode) for mode in ("blocks_once", "whole"))
    names = [[n.name for n in call.graphs[0].captured.graph.nodes] for call in (once, whole)]
    assert names[0] == names[1]


def test_other_threads_trace_every_block() -> None:
    model = Starts(Block)
    blocks = {id(block): block for block in model.blocks}
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def compile_model() -> None:
        torch.compile(model, backend=keep, fullgraph=True)(torch.randn(5, 8))

    with tracing_repeats_once(blocks, counterparts, LayoutReads(), OtherNames()) as repeats:
        thread = threading.Thread(target=compile_model)
        thread.start()
        thread.join()
    assert len(graphs) == 1
    assert repeats.repeated == 0
