"""Steady calls: eager, `torch.compile` and hotstart in one process, called in turns."""

from __future__ import annotations

import json
import statistics
import sys
from functools import partial
from typing import Any

import torch

sys.path.insert(0, __file__.rpartition("/")[0])

from bench_llama import build
from harness import call_in_turns, in_fresh_process, keep
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
        taken = call_in_turns(*(partial(call, ids) for call in calls.values()), rounds=CALLS)
    seconds = dict(zip(calls, taken, strict=True))
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


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run()))
    else:
        main()
