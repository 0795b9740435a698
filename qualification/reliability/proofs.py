"""Build architectures of the conformance suite, and say what comparing their units has shown.

`python -m qualification.reliability.proofs FOLDER LIMIT_S TOTAL_S` builds those first that take
least, each in a process of its own with one thread and empty caches, one on each core; `one MODULE
NAME` builds one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from qualification import proof
from qualification.conformance import catalogue, results
from qualification.conformance.run import KEPT

Found = dict[str, Any]


def main(folder: str, limit_s: str, total_s: str) -> None:
    """Build as many as the time allows, and print what was found as JSON."""
    until = time.perf_counter() + float(total_s)

    def found(entry: tuple[str, str]) -> Found | None:
        if time.perf_counter() > until:
            return None
        one = _in_a_process(Path(folder) / entry[1], *entry, float(limit_s))
        print(f"{entry[1]}: {one}", file=sys.stderr, flush=True)
        return one

    entries = list(_in_order())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        all_found = list(pool.map(found, entries))
    names = [name for _, name in entries]
    print(json.dumps(summary({n: f for n, f in zip(names, all_found, strict=True) if f})))


def summary(found: Mapping[str, Found]) -> Found:
    """What all builds have shown together."""
    built = {name: one for name, one in found.items() if "problem" not in one}
    shares = [one["prove_s"] / one["build_s"] for one in built.values()]
    proofs = (msgspec.convert(one["proof"], proof.Proof) for one in built.values())
    return {
        "architectures": len(built),
        "failed": {name: one["problem"] for name, one in found.items() if name not in built},
        "proof": msgspec.to_builtins(proof.together(proofs)),
        "share": statistics.median(shares),
        "largest_share": max(shares),
    }


def build(module: str, name: str) -> Found:
    """Compile one architecture with Inductor."""
    import torch

    import hotstart
    from qualification.conformance.measure import call, make

    entry = catalogue.entry(module, name)
    model = make(entry)
    inputs = call(entry, entry.example)
    with torch.no_grad():
        model(**inputs)
    program = hotstart.compile(model, kwargs=inputs, dynamic_shapes=entry.dynamic_shapes)
    return {
        "build_s": program.report.wall_s,
        "prove_s": program.report.phases["prove"],
        "proof": msgspec.to_builtins(proof.of(program, name)),
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
        "OMP_NUM_THREADS": "1",
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
