"""Processes that start at once and want the same program: one compiles, the others load.

`python -m qualification.reliability.starts FOLDER COUNT` prints what each of them did as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

_START = """
import json, sys, time
import torch
import hotstart
from tests.integration.changing import Changing

torch.manual_seed(0)
model, x = Changing().eval(), torch.randn(3, 4)
while time.time() < float(sys.argv[2]):
    time.sleep(0.001)
started = time.perf_counter()
options = hotstart.Options(compiler=sys.argv[3])
program = hotstart.compile(model, (x,), cache=sys.argv[1], options=options)
seconds = time.perf_counter() - started
with torch.no_grad():
    right = torch.allclose(program(x), model(x), atol=1e-6)
did = {unit.action for unit in program.report.units}
print(json.dumps({"did": sorted(did), "seconds": seconds, "right": right}))
"""


def run(folder: str, count: int, compiler: str = "op_by_op") -> dict[str, Any]:
    """Start processes on an empty cache, then one more."""
    begin = time.time() + 2 + count
    first = _together(folder, count, compiler, begin)
    (after,) = _together(folder, 1, compiler, 0)
    compiled = [one for one in first if "compiled" in one["did"]]
    return {
        "processes": count,
        "compiled": len(compiled),
        "wrong": sum(not one["right"] for one in (*first, after)),
        "longest_s": max(one["seconds"] for one in first),
        "build_s": min(one["seconds"] for one in compiled),
        "later_ms": 1e3 * after["seconds"],
        "later_compiled": int("compiled" in after["did"]),
    }


def _together(folder: str, count: int, compiler: str, begin: float) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", _START, folder, str(begin), compiler]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(count)
    ]
    return [json.loads(process.communicate()[0]) for process in processes]


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])))
