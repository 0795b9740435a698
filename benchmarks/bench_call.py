"""Steady calls: eager, `torch.compile` and hotstart in one process, called in turns."""

from __future__ import annotations

import json
import statistics
import sys
import time
from functools import partial
from typing import Any

import torch

sys.path.insert(0, __file__.rpartition("/")[0])

from bench_llama import build
from harness import in_fresh_process, keep
from models import llama, tokens

SUBJECTS = ("torch.compile", "hotstart auto", "hotstart attention")
CALLS = 200


def main() -> None:
    """Measure in a fresh process and keep the medians and ratios."""
    measured = in_fresh_process(__file__, "run")
    print(json.dumps(measured["ratios"], indent=2))
    keep("call", measured)


def run() -> dict[str, Any]:
    """Median milliseconds of a call of each subject, and ratios of calls made side by side."""
    model, ids = llama(32), tokens()
    with torch.no_grad():
        calls = {subject: build(subject, model, ids)[0] for subject in SUBJECTS}
        calls["eager"] = lambda x: model(input_ids=x)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(CALLS + 10):
            for name, call in calls.items():
                taken = _seconds(partial(call, ids))
                if turn >= 10:
                    seconds[name].append(taken)
    stock = seconds["torch.compile"]
    ratios = {
        f"{name} / torch.compile": statistics.median(
            own / other for own, other in zip(kept, stock, strict=True)
        )
        for name, kept in seconds.items()
        if name != "torch.compile"
    }
    return {
        "ratios": {name: round(ratio, 4) for name, ratio in ratios.items()},
        "call_ms": {name: statistics.median(kept) * 1e3 for name, kept in seconds.items()},
        "calls": CALLS,
    }


def _seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run()))
    else:
        main()
