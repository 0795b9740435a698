"""Functions that the backend compiles, compared with themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo.exc
import torch.fx.experimental._config
import torch.utils._pytree as pytree
from torch import Tensor, nn

from hotstart.backend import hotstart as backend

EAGER = {"compiler": "op_by_op"}


def compiled(fn: Any, options: dict[str, Any] = EAGER, **kwargs: Any) -> Any:
    """A compiled function that counts the graphs it had to be compiled for, as `.graphs`."""
    graphs: list[Any] = []

    def counting(module: Any, inputs: Any, **given: Any) -> Any:
        graphs.append(module)
        return backend(module, inputs, **given)

    made = torch.compile(fn, backend=counting, options=options, **kwargs)

    def call(*args: Any) -> Any:
        return made(*args)

    call.graphs = graphs  # type: ignore[attr-defined]
    return call


def copies(value: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, value)


def assert_same(found: Any, expected: Any) -> None:
    left, left_spec = pytree.tree_flatten(found)
    right, right_spec = pytree.tree_flatten(expected)
    assert left_spec == right_spec
    for a, b in zip(left, right, strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        else:
            assert type(a) is type(b)
            assert a == b


def check(call: Any, fn: Callable[..., Any], *calls: tuple[Any, ...]) -> None:
    """Compare results, and what became of the arguments, with those of `fn`."""
    for args in calls:
        theirs = copies(args)
        with torch.no_grad():
            assert_same(call(*args), fn(*theirs))
        assert_same(args, theirs)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))
