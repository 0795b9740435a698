"""Build architectures of the conformance suite, and say what comparing their units has shown.

`python -m tests.reliability.proofs FOLDER LIMIT_S TOTAL_S` builds one after the other, those first
that take least, each in a process of its own with empty caches; `one MODULE NAME` builds one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.conformance import catalogue, results
from tests.conformance.run import KEPT

Found = dict[str, Any]


def main(folder: str, limit_s: str, total_s: str) -> None:
    """Build as many as the time allows, and print what was found as JSON."""
    until = time.perf_counter() + float(total_s)
    found: dict[str, Found] = {}
    for module, name in _in_order():
        if time.perf_counter() < until:
            found[name] = _in_a_process(Path(folder) / name, module, name, float(limit_s))
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    print(json.dumps(summary(found)))


def summary(found: Mapping[str, Found]) -> Found:
    """What all builds have shown together."""
    built = {name: one for name, one in found.items() if "problem" not in one}
    shares = [one["prove_s"] / one["build_s"] for one in built.values()]
    return {
        "architectures": len(built),
        "failed": sorted(set(found) - set(built)),
        **{key: sum(one[key] for one in built.values()) for key in ("units", "proven", "sizes")},
        **{
            key: [[name, *line] for name, one in built.items() for line in one[key]]
            for key in ("without", "op_by_op", "unproven")
        },
        "share": statistics.median(shares),
        "largest_share": max(shares),
    }


def build(module: str, name: str) -> Found:
    """Compile one architecture with Inductor."""
    import torch

    import hotstart
    from tests.conformance.measure import call, make

    entry = catalogue.entry(module, name)
    model = make(entry)
    inputs = call(entry, entry.example)
    with torch.no_grad():
        model(**inputs)
    program = hotstart.compile(model, kwargs=inputs, dynamic_shapes=entry.dynamic_shapes)
    report = program.report
    return {
        "build_s": report.wall_s,
        "prove_s": report.phases["prove"],
        "units": len(program.artifact.units),
        "proven": report.proven,
        "sizes": sum(len(unit.proof.sizes) for unit in program.artifact.units.values()),
        "without": report.without,
        "op_by_op": report.inlined,
        "unproven": report.unproven,
    }


def _in_order() -> Iterator[tuple[str, str]]:
    kept = msgspec.json.decode(KEPT.read_bytes(), type=results.Results)
    took = {result.name: result.build_s or 0.0 for result in kept.results}
    names = [
        (module, entry.name)
        for module in catalogue.modules()
        for entry in catalogue.entries_of(module)
    ]
    return iter(sorted(names, key=lambda one: took.get(one[1], 0.0)))


def _in_a_process(folder: Path, module: str, name: str, limit_s: float) -> Found:
    folder.mkdir(parents=True)
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TMPDIR": str(folder),
    }
    command = [sys.executable, "-m", __spec__.name, "one", module, name]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True,
            timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"problem": f"not built in {limit_s:.0f} s"}
    if done.returncode:
        return {"problem": done.stderr.strip().splitlines()[-1][:300]}
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    if sys.argv[1] == "one":
        print(json.dumps(build(*sys.argv[2:])))
    else:
        main(*sys.argv[1:])
