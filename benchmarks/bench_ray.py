"""A model of eight different pieces, built on a Ray cluster of one core and on one of two.

Every build runs in a fresh process with a cluster of its own and empty caches. All processes of a
cluster have its cores alone; the process that builds mostly waits, and has those of the machine.
`cold` is the wall time of a build whose workers have to start and import torch; `warm` that of the
next build, of eight other pieces, whose workers are there. Ratios are those of the medians.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import Others, in_fresh_process, in_turns, keep

CORES = (1, 2)
PIECES = 8
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    """Measure, print and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    builds = {
        f"{cores} cores": partial(
            in_fresh_process, __file__, "build", str(cores), environment=ENVIRONMENT
        )
        for cores in CORES
    }
    measured = in_turns(builds, given.rounds)
    one, two = (measured[f"{cores} cores"] for cores in CORES)
    found = {
        "times as fast on two cores as on one": {
            kind: one[f"{kind}_s"] / two[f"{kind}_s"] for kind in ("cold", "warm")
        }
    }
    print(json.dumps(found, indent=2))
    keep("ray", {**found, "subjects": measured})


def build(cores: int) -> dict[str, Any]:
    """Start a cluster of so many cores, and build twice."""
    import ray

    every_core = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every_core)[:cores])
    # Names of sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=80 << 20,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=folder,
        )
        os.sched_setaffinity(0, every_core)
        try:
            others = Others()
            cold, warm = built(width=192), built(width=320)
            return {**_named("cold", cold), **_named("warm", warm), "others": others.cores()}
        finally:
            ray.shutdown()


def _named(kind: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{kind}_{name}": value for name, value in numbers.items()}


def built(width: int) -> dict[str, float]:
    """Build a model of pieces that nobody has compiled; what that took."""
    import torch

    import hotstart
    from hotstart import Dim, Options

    model, example = stages(width)
    started = time.perf_counter()
    program = hotstart.compile(
        model,
        (example,),
        dynamic_shapes={"x": {0: Dim("rows", min=2, max=512)}},
        split_on=["aten::sort"],
        options=Options(jobs="ray"),
    )
    seconds = time.perf_counter() - started
    torch.testing.assert_close(program(example), model(example), rtol=1e-4, atol=1e-4)
    report = program.report
    compiled = sum(unit.action == "compiled" for unit in report.units)
    assert compiled == PIECES, compiled
    return {
        "s": seconds,
        "compile_s": report.phases["compile"],
        "workers_s": report.workers.seconds,
        "workers": report.workers.processes,
    }


def stages(width: int) -> tuple[Any, Any]:
    """A model that is cut into eight pieces of about the same work, none like another."""
    import torch
    from torch import Tensor, nn

    acts = (torch.tanh, torch.sigmoid, torch.relu, nn.functional.gelu,
            nn.functional.silu, torch.sin, torch.erf, nn.functional.softplus)  # fmt: skip

    class Stage(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.act = acts[number]
            self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for linear, norm in zip(self.linears, self.norms, strict=True):
                x = x + self.act(linear(norm(x))).softmax(-1)
                x = x / (1 + x.cumsum(-1).abs().mean(-1, keepdim=True))
            return x

    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(Stage(number) for number in range(PIECES))

        def forward(self, x: Tensor) -> Tensor:
            for number, stage in enumerate(self.stages):
                if number:
                    x = x.sort()[0]
                x = stage(x)
            return x

    torch.manual_seed(0)
    return Stages().eval(), torch.randn(16, width)


if __name__ == "__main__":
    if sys.argv[1:2] == ["build"]:
        print(json.dumps(build(int(sys.argv[2]))))
    else:
        main()
