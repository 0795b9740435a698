"""Build architectures of the conformance suite, and say what comparing their units has shown.

`python -m qualification.reliability.proofs FOLDER LIMIT_S TOTAL_S` goes on with those that the
figures lack, those first that take least, until the time is up. Each is built in a process of its
own with one thread and empty caches, one on each core; `one MODULE NAME` builds one.
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

FIGURES = Path(__file__).parents[2] / "docs" / "reliability.json"

Found = dict[str, Any]


def main(folder: str, limit_s: str, total_s: str) -> None:
    """Build as many as the time allows, and print what is known of all as JSON."""
    until = time.perf_counter() + float(total_s)
    known: dict[str, Found] = json.loads(FIGURES.read_text()).get("proofs", {})

    def find(entry: tuple[str, str]) -> None:
        if time.perf_counter() < until:
            module, name = entry
            known[name] = _in_a_process(Path(folder) / name, module, name, float(limit_s))
            print(f"{name}: {known[name]}", file=sys.stderr, flush=True)

    missing = [entry for entry in _in_order() if "proof" not in known.get(entry[1], {})]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(find, missing))
    print(json.dumps(known))


def summary(found: Mapping[str, Found]) -> Found:
    """What all builds have shown together."""
    built = {name: one for name, one in found.items() if "proof" in one}
    shares = [100 * one["prove_s"] / one["build_s"] for one in built.values()]
    proofs = (msgspec.convert(one["proof"], proof.Proof) for one in built.values())
    failed = [f"- {name}: {one['problem']}" for name, one in found.items() if name not in built]
    text = proof.text(proof.together(proofs))
    return {
        "architectures": len(built),
        "of": len(list(_in_order())),
        "found": "\n".join([text, "", "Not built:", "", *failed]) if failed else text,
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
