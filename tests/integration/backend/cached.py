"""A model through `torch.compile(backend="hotstart")` with a cache, in a process of its own.

`python -m tests.integration.backend.cached FOLDER` prints what was done, as JSON. The folder is to
have every piece.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch._inductor.metrics
from torch import Tensor, nn

from hotstart import Store
from hotstart.backend import hotstart
from hotstart.events import Event


class Block(nn.Module):
    """A layer that is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.linear(x)).sin()


class Broken(nn.Module):
    """Two graphs in each call: one whose compile assumes something of a size, one of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x.view(-1, 8) * 2 if x.shape[0] % 8 == 0 else x[:8].sin()[None]
        torch._dynamo.graph_break()
        for block in self.blocks:
            y = block(y)
        return y


def broken() -> tuple[nn.Module, list[Tensor]]:
    """The model, and its input in some sizes."""
    torch.manual_seed(0)
    return Broken().eval(), [torch.randn(size) for size in (24, 160, 9)]


def run(model: Any, inputs: Sequence[Tensor], cache: Any, **options: Any) -> dict[str, Any]:
    """Call a model with inputs of some sizes; what was done for each piece, and the results."""
    torch.compiler.reset()
    torch._inductor.metrics.reset()
    events: list[Event] = []
    options |= {"cache": cache, "on_event": events.append}
    fast = torch.compile(model, backend=hotstart, dynamic=True, options=options)
    hashed = hashlib.sha256()
    with torch.no_grad():
        for x in inputs:
            found = fast(x)
            torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
            hashed.update(found.numpy().tobytes())
    finished = [event.detail for event in events if event.kind == "unit_finished"]
    return {
        "actions": [detail["action"] for detail in finished],
        "graphs": sum(event.kind == "build_finished" for event in events),
        "loaded": sum(int(e.detail["loaded"]) for e in events if e.kind == "build_finished"),
        "results": hashed.hexdigest(),
        "kernels": torch._inductor.metrics.generated_kernel_count,
    }


if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    print(json.dumps(run(*broken(), cache=Store(folder, policy="require"))))
