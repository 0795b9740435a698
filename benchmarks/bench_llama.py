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

from harness import call_in_turns, in_fresh_process, in_turns, keep
from models import llama, tokens

ATTENTION = "aten::scaled_dot_product_attention"
STOCK_LAYERS = (8, 32)
DEPTHS = (8, 32, 64, 128)
CALLS = 60


def main() -> None:
    """Run the subjects in turns and print and keep the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cases = [("torch.compile", layers) for layers in STOCK_LAYERS]
    cases += [("hotstart auto", layers) for layers in DEPTHS]
    cases += [("hotstart attention", 32), ("hotstart whole", 32)]
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
    usual = {layers: measured[f"hotstart auto, {layers} layers"] for layers in DEPTHS}
    for layers in DEPTHS:
        found[f"hotstart auto: {layers} layers / 32 layers, cold"] = (
            usual[layers]["cold_s"] / usual[32]["cold_s"]
        )
    shallow = measured["torch.compile, 8 layers"]
    found["torch.compile: 8 layers / 32 layers, cold"] = shallow["cold_s"] / stock["cold_s"]
    whole = measured["hotstart whole, 32 layers"]
    found["blocks traced once / every block, capture"] = usual[32]["capture_s"] / whole["capture_s"]
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
        taken = call_in_turns(lambda: call(ids), lambda: model(input_ids=ids), rounds=CALLS)
    call_ms, eager_ms = (1e3 * statistics.median(seconds) for seconds in taken)
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
        split_on=[ATTENTION] if subject == "hotstart attention" else "auto",
        options=hotstart.Options(capture="whole" if subject == "hotstart whole" else "blocks_once"),
    )
    report = program.report
    return (lambda x: program(input_ids=x)), {
        "cut_and_digest_s": report.phases["partition"] + report.phases["digest"],
        "capture_s": report.phases["capture"],
        "pieces": report.pieces,
        "unique": report.unique,
        "phases": dict(report.phases),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
