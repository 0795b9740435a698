"""Linears: hotstart's kernel, oneDNN on packed weights, and `addmm`, in turns."""

from __future__ import annotations

import json
import statistics
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, __file__.rpartition("/")[0])

from harness import Others, call_in_turns, in_fresh_process, keep

import hotstart

WEIGHTS = ((256, 256), (1536, 384), (384, 1536), (3072, 768), (768, 3072))
"""Rows and columns; a row is what makes one number of a result."""

ROWS = (1, 4, 16, 32, 64, 128, 512)
WAYS = {"addmm": False, "packed": "always", "kernel": True}
"""The names of what computes a linear, and the options that choose it with AVX2."""

APART = 60_000_000
"""Bytes of all weights of a model, so that each is out of the caches when its turn comes."""

CALLS = 30
IDLE = 0.1
"""Cores that others may keep busy on an idle machine."""


class Apart(nn.Module):
    """Linears of one size that have nothing in common."""

    def __init__(self, many: int, wide: int) -> None:
        super().__init__()
        count = max(7, APART // (4 * many * wide))
        self.linears = nn.ModuleList(nn.Linear(wide, many) for _ in range(count))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Results of inputs of shape (linears, rows, columns)."""
        return [linear(inputs[number]) for number, linear in enumerate(self.linears)]


def main() -> None:
    """Measure each weight in a fresh process, and keep microseconds and ratios."""
    found = [in_fresh_process(__file__, str(many), str(wide)) for many, wide in WEIGHTS]
    busiest = max(each["others_cores"] for each in found)
    for each in found:
        print(json.dumps(each["us"]))
    keep("rows", {"idle": busiest <= IDLE, "others_cores": busiest, "weights": found})


def run(many: int, wide: int) -> dict[str, Any]:
    """Microseconds of one linear at each number of rows, in each way; hotstart over the best."""
    torch.manual_seed(0)
    model = Apart(many, wide).eval()
    count = len(model.linears)
    rows = hotstart.Dim("rows", max=max(ROWS))
    programs = {
        name: hotstart.compile(
            model,
            (torch.randn(count, 16, wide),),
            dynamic_shapes={"inputs": {1: rows}},
            options=hotstart.Options(pack_weights=packing),
        )
        for name, packing in WAYS.items()
    }
    us: dict[int, dict[str, float]] = {}
    others = Others()
    for size in ROWS:
        given = torch.randn(count, size, wide)
        calls = [partial(program, given) for program in programs.values()]
        with torch.no_grad():
            taken = call_in_turns(*calls, rounds=CALLS)
        medians = map(statistics.median, taken)
        us[size] = {name: 1e6 * each / count for name, each in zip(WAYS, medians, strict=True)}
    return {
        "weight": [many, wide],
        "linears": count,
        "us": us,
        "over_best": {
            size: each["kernel"] / min(each["addmm"], each["packed"]) for size, each in us.items()
        },
        "others_cores": others.cores(),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        main()
