"""What a call costs besides its kernels: the gap between pieces, and everything around them."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

sys.path.insert(0, __file__.rpartition("/")[0])

from harness import call_in_turns, in_fresh_process, in_turns, keep
from models import llama, tokens

import hotstart
from hotstart.runtime.code.generated import run_code
from hotstart.runtime.code.unit_functions import instantiate

CALLS = 60


def main() -> None:
    """Measure in fresh processes and keep the medians."""
    measured = in_turns({"llama, 32 layers": partial(in_fresh_process, __file__, "run")}, rounds=3)
    shown = {name: {k: v for k, v in m.items() if k != "runs"} for name, m in measured.items()}
    print(json.dumps(shown, indent=2))
    keep("gap", measured)


def run() -> dict[str, Any]:
    """Nanoseconds between one unit's return and the next one's start.

    With units that return at once, which is what the stitched code itself costs; and with the real
    ones, whose kernels leave the caches to be filled again.
    """
    model, ids = llama(32), tokens()
    program = hotstart.compile(
        model,
        kwargs={"input_ids": ids},
        dynamic_shapes={"input_ids": {1: hotstart.Dim("seq", min=2, max=512)}},
    )
    artifact = program.artifact
    ((stitched,),) = (call.stitched for call in artifact.calls)
    by_key = {unit.key: unit for unit in artifact.units}
    units = [instantiate(by_key[key]) for key in stitched.units]
    names = dict(model.named_parameters()) | dict(model.named_buffers())
    weights = [names[artifact.requirements.weights[slot].name] for slot in stitched.weights]
    make = run_code(stitched.code, {})["bind"]
    length = ids.shape[1]

    watch = Watch()
    with torch.no_grad():
        timed = [watch.timed(unit) for unit in units]
        real = make(weights, timed, stitched.constants, [])
        in_place = [gap for _ in range(CALLS) for gap in watch.gaps(real, length, ids)]
        # Every unit now returns what it last returned, without computing it.
        returned = iter(watch.results.copy())
        hollow = make(weights, [watch.idle(returned)] * len(units), stitched.constants, [])
        alone = [gap for _ in range(CALLS) for gap in watch.gaps(hollow, length, ids)]
        straight = make(weights, units, stitched.constants, [])
        taken = call_in_turns(
            lambda: straight(length, ids), lambda: program(input_ids=ids), rounds=CALLS
        )
    variant_s, program_s = map(statistics.median, taken)
    return {
        "gap_ns": statistics.median(alone),
        "gap_after_kernels_ns": statistics.median(in_place),
        "pieces": len(watch.results),
        "variant_ms": variant_s * 1e3,
        "program_ms": program_s * 1e3,
        "around_the_variant_us": (program_s - variant_s) * 1e6,
    }


class Watch:
    """Notes when units start and end.

    The clock is read twice at the end of a unit, so that the reading that counts is not the one
    that finds the clock's own code out of the caches.
    """

    def __init__(self) -> None:
        self.started: list[int] = []
        self.ended: list[int] = []
        self.results: list[Any] = []

    def timed(self, unit: Any) -> Any:
        """A unit that notes when it is called."""
        return lambda *weights: self._noted(unit(*weights))

    def idle(self, results: Iterator[Any]) -> Any:
        """A unit that notes when it is called, and returns a result that is there already."""

        def bind(*_: Any) -> Any:
            result = next(results)
            return self._noted(lambda args: args.clear() or result)

        return bind

    def _noted(self, call: Any) -> Any:
        clock = time.perf_counter_ns

        def noted(args: list[Any]) -> Any:
            self.started.append(clock())
            self.results.append(call(args))
            clock()
            self.ended.append(clock())
            return self.results[-1]

        return noted

    def gaps(self, run_variant: Any, *arguments: Any) -> list[int]:
        """The times between units in one call of a variant."""
        for kept in (self.started, self.ended, self.results):
            kept.clear()
        run_variant(*arguments)
        return [start - end for end, start in zip(self.ended, self.started[1:], strict=False)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run()))
    else:
        main()
