"""What a call costs besides its kernels: the gap between pieces, and everything around them."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch

sys.path.insert(0, __file__.rpartition("/")[0])

from harness import in_fresh_process, in_turns, keep
from models import llama, tokens

import hotstart
from hotstart.generated import run_source
from hotstart.loading import KernelLoader
from hotstart.loading.program import instantiate


def main() -> None:
    """Measure in fresh processes and keep the medians."""
    measured = in_turns({"llama, 32 layers": lambda: in_fresh_process(__file__, "run")}, rounds=3)
    print(
        json.dumps(
            {name: {k: v for k, v in m.items() if k != "runs"} for name, m in measured.items()},
            indent=2,
        )
    )
    keep("gap", measured)


def run() -> dict[str, Any]:
    """Nanoseconds between one unit's return and the next one's start, less the clock's own cost."""
    model, ids = llama(32), tokens()
    program = hotstart.compile(
        model,
        kwargs={"input_ids": ids},
        dynamic_shapes={"input_ids": {1: hotstart.Dim("seq", min=2, max=512)}},
    )
    clock = time.perf_counter_ns
    started: list[int] = []
    ended: list[int] = []

    def timed(unit: Any) -> Any:
        def call(args: list[Any]) -> Any:
            started.append(clock())
            result = unit(args)
            ended.append(clock())
            return result

        return call

    artifact = program.artifact
    (stitched,) = artifact.stitched
    loader = KernelLoader()
    units = [timed(instantiate(artifact.units[key], loader)) for key in stitched.units]
    names = dict(model.named_parameters()) | dict(model.named_buffers())
    weights = [names[artifact.contract.weights[slot].name] for slot in stitched.weights]
    run_variant = run_source(stitched.source, stitched.filename, {})["bind"](
        weights, units, stitched.constants, []
    )
    gaps: list[float] = []
    around: list[float] = []
    with torch.no_grad():
        for turn in range(60):
            started.clear()
            ended.clear()
            before = clock()
            run_variant(ids.shape[1], ids)
            after = clock()
            if turn >= 10:
                gaps += [s - e for e, s in zip(ended, started[1:], strict=False)]
                around.append(
                    after - before - sum(e - s for s, e in zip(started, ended, strict=True))
                )
        whole = [_seconds(lambda: program(input_ids=ids)) for _ in range(60)]
        straight = [_seconds(lambda: run_variant(ids.shape[1], ids)) for _ in range(60)]
    empty = statistics.median(_clock_pairs(clock))
    return {
        "gap_ns": statistics.median(gaps) - empty,
        "gap_p90_ns": statistics.quantiles(gaps, n=10)[-1] - empty,
        "clock_ns": empty,
        "all_gaps_us": statistics.median(around) / 1e3,
        "call_ms": statistics.median(whole) * 1e3,
        "variant_ms": statistics.median(straight) * 1e3,
        "pieces": len(started),
    }


def _clock_pairs(clock: Any) -> list[int]:
    """What the instrumented call itself adds between two readings of the clock."""
    readings: list[int] = []
    pairs = []
    for _ in range(1000):
        readings.append(clock())
        readings.append(clock())
        pairs.append(readings[-1] - readings[-2])
    return pairs


def _seconds(function: Any) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run()))
    else:
        main()
