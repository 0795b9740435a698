"""Cold build of a Llama: hotstart against `torch.compile(dynamic=True)`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

sys.path.insert(0, __file__.rpartition("/")[0])

from harness import in_fresh_process, in_turns, keep
from models import llama, tokens

ATTENTION = "aten::scaled_dot_product_attention"
CALLS = 60


def main() -> None:
    """Run the subjects in turns and print and keep the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cases = [(subject, 32) for subject in ("torch.compile", "hotstart auto", "hotstart attention")]
    cases.append(("hotstart auto", 64))
    subjects = {
        f"{subject}, {layers} layers": partial(
            in_fresh_process, __file__, "run", subject, str(layers)
        )
        for subject, layers in cases
    }
    measured = in_turns(subjects, arguments.rounds)
    found = ratios(measured)
    print(json.dumps(found, indent=2))
    keep("llama", {"ratios": found, "subjects": measured})


def ratios(measured: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What the goals are stated in: hotstart over torch.compile, and growth with depth."""
    stock = measured["torch.compile, 32 layers"]
    found = {}
    for name in ("hotstart auto", "hotstart attention"):
        own = measured[f"{name}, 32 layers"]
        found[f"{name}: cold / torch.compile cold"] = own["cold_s"] / stock["cold_s"]
        found[f"{name}: cut and digest / cold"] = own["cut_and_digest_s"] / own["cold_s"]
    shallow, deep = (measured[f"hotstart auto, {n} layers"] for n in (32, 64))
    found["from 32 to 64 layers: build growth / capture growth"] = (
        deep["cold_s"] - shallow["cold_s"]
    ) / (deep["capture_s"] - shallow["capture_s"])
    return {name: round(value, 4) for name, value in found.items()}


def run(subject: str, layers: int) -> dict[str, Any]:
    """Build once, cold, and time calls beside eager ones. Runs in a process of its own."""
    model, ids = llama(layers), tokens()
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        started = time.perf_counter()
        call, more = build(subject, model, ids)
        first = call(ids).logits
        cold_s = time.perf_counter() - started
        error = (first - expected).abs().max().item()
        call_ms, eager_ms = alternate(call, lambda x: model(input_ids=x), ids)
    return {
        "cold_s": cold_s, "call_ms": call_ms, "eager_ms": eager_ms, "max_error": error, **more,
    }  # fmt: skip


def build(
    subject: str, model: Any, ids: torch.Tensor
) -> tuple[Callable[[torch.Tensor], Any], dict[str, Any]]:
    """A function that calls the compiled model, and what the build says about itself."""
    if subject == "torch.compile":
        compiled = torch.compile(model, dynamic=True)
        return (lambda x: compiled(input_ids=x)), {}
    import hotstart

    program = hotstart.compile(
        model,
        kwargs={"input_ids": ids},
        dynamic_shapes={"input_ids": {1: hotstart.Dim("seq", min=2, max=512)}},
        split_on="auto" if subject == "hotstart auto" else [ATTENTION],
    )
    report = program.report
    return (lambda x: program(input_ids=x)), {
        "cut_and_digest_s": report.phases["partition"] + report.phases["digest"],
        "capture_s": report.phases["capture"],
        "pieces": report.pieces,
        "made": report.made,
        "phases": dict(report.phases),
    }


def alternate(
    first: Callable[[torch.Tensor], Any], second: Callable[[torch.Tensor], Any], ids: torch.Tensor
) -> tuple[float, float]:
    """Median milliseconds of a call of each, called in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(CALLS + 10):
        for function, kept in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            function(ids)
            if turn >= 10:
                kept.append(time.perf_counter() - started)
    return statistics.median(seconds[0]) * 1e3, statistics.median(seconds[1]) * 1e3


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
