"""Write the samples of the current formats: for one target, and for several."""

from __future__ import annotations

from pathlib import Path

import torch

import hotstart
from hotstart.artifact.header import FORMAT, SEVERAL
from hotstart.targets import TargetName
from tests.integration.shop import Shop

TARGETS: dict[int, tuple[TargetName, ...]] = {
    FORMAT: ("native",),
    SEVERAL: ("x86-64-v2", "x86-64-v3"),
}


def main() -> None:
    """Compile without native code, so that the samples fit every processor."""
    for number, targets in TARGETS.items():
        program = hotstart.compile(
            Shop().eval(),
            (torch.zeros(4, 8),),
            dynamic_shapes={"x": {0: hotstart.Dim("batch", max=8, sizes=[1])}},
            options=hotstart.Options(compiler="op_by_op", target=targets),
        )
        file = Path(__file__).with_name(f"format_{number}.hot")
        if not file.exists():  # one that was released is never written again
            program.save(file)


if __name__ == "__main__":
    main()
