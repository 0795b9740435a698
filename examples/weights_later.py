"""Compile a model that has no weights yet, then give it some, and later others."""

from __future__ import annotations

import torch
from torch import nn

import hotstart


def make() -> nn.Module:
    """A model of which any number of checkpoints may exist."""
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8)).eval()


def main() -> None:
    """Compile on the meta device; then load two checkpoints into the same program."""
    with torch.device("meta"):
        model = make()
    program = hotstart.compile(
        model,
        (torch.empty(4, 32, device="meta"),),
        dynamic_shapes={"input": {0: hotstart.Dim("batch", max=16)}},
    )
    x = torch.randn(3, 32)
    for _ in range(2):
        checkpoint = make()
        model.load_state_dict(checkpoint.state_dict(), assign=True)
        with torch.no_grad():
            difference = (program(x) - checkpoint(x)).abs().max()
        print(f"largest difference to the checkpoint in eager: {difference:.1e}")

    model.half()
    try:
        program(x)
    except hotstart.ModelMismatch as error:
        print(f"refused: {error.problems[0]}")


if __name__ == "__main__":
    main()
