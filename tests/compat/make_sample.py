"""Write the sample of the current format."""

from __future__ import annotations

from pathlib import Path

import torch

import hotstart
from hotstart.artifact.header import FORMAT
from tests.integration.shop import Shop


def main() -> None:
    """Compile without native code, so that the sample fits every processor."""
    program = hotstart.compile(
        Shop().eval(),
        (torch.zeros(4, 8),),
        dynamic_shapes={"x": {0: hotstart.Dim("batch", max=8, sizes=[1])}},
        options=hotstart.Options(compiler="op_by_op"),
    )
    program.save(Path(__file__).with_name(f"format_{FORMAT}.hot"))


if __name__ == "__main__":
    main()
