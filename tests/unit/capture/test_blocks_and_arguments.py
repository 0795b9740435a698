"""Repeated blocks that are called with other arguments: the graph is a whole trace's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.blocks import Block, Stack, compared

SCALE = torch.full((8,), 3.0)


class Product(Block):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * y


class SameTwice(Stack):
    """First the same tensor for both arguments, then two."""

    def forward(self, x: Tensor) -> Any:
        y = self.blocks[0](x, x)
        for block in self.blocks[1:]:
            y = block(y, x)
        return y


class OtherKinds(Stack):
    def forward(self, x: Tensor) -> Any:
        y = self.blocks[0](x, x)
        y = self.blocks[1](y, 2.0)
        y = self.blocks[2](y, 3.0)
        return self.blocks[3](y, x[:1])


class GivenItsOwnWeight(Stack):
    """The first block is given its own weight, the others the first's."""

    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x, self.blocks[0].norm.weight)
        return x


class GivenAGlobal(Stack):
    """The first block is given the tensor that all of them read besides."""

    def forward(self, x: Tensor) -> Any:
        x = self.blocks[0](x, SCALE)
        for block in self.blocks[1:]:
            x = block(x, self.blocks[0].norm.weight)
        return x


class ScaledProduct(Product):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, y) * SCALE


class OtherStrides(Stack):
    def forward(self, x: Tensor) -> Any:
        x = self.blocks[1](self.blocks[0](x))
        x = self.blocks[2](x.t().contiguous().t())
        return self.blocks[3](x)


class Counting(Stack):
    """A number that forward counts goes to the blocks."""

    def forward(self, x: Tensor) -> Any:
        for number, block in enumerate(self.blocks):
            x = block(x, number)
        return x


MODELS: dict[str, Callable[[], nn.Module]] = {
    "one tensor for two arguments": lambda: SameTwice(Product),
    "other kinds of arguments": lambda: OtherKinds(Product),
    "its own weight as an argument": lambda: GivenItsOwnWeight(Product),
    "a global as an argument": lambda: GivenAGlobal(ScaledProduct),
    "strides": lambda: OtherStrides(Block),
    "a counted number": lambda: Counting(Product),
}


@pytest.mark.thorough
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_graphs_are_those_of_a_whole_trace(
    make: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    different, _ = compared(make(), caplog)
    assert different == []
