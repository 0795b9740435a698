"""Prepared weights of a Llama: how long a load takes, and the memory of processes that share them.

Every process is a fresh one; files come from the system's page cache. One after the other,
processes that have imported torch load the program with a checkpoint, which is packed, and with
prepared weights, which are mapped; others load those without torch. Then some of each kind run at
once, and each says what memory it holds when all have made a call: `rss` counts all pages, `pss`
those that it shares with others in part, `private` those that nobody else has. Last, one process
loads without torch and forks, and its forks call.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import in_fresh_process, in_turns, keep

KINDS = ("import torch", "checkpoint", "prepared", "without torch")
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
"""More threads than cores would wait for each other by spinning."""

_ROWS = {"rss": ("Rss",), "pss": ("Pss",), "private": ("Private_Clean", "Private_Dirty")}


def main() -> None:
    """Build once, measure, and print and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--folder", help="keeps what is built")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or made
        if not Path(folder, "model.weights").exists():
            in_fresh_process(__file__, "build", folder, str(given.layers))
        loads = {
            kind: partial(in_fresh_process, __file__, "load", folder, kind) for kind in KINDS[1:]
        }
        measured = in_turns(loads, given.rounds)
        memory = {kind: together(folder, kind, given.processes) for kind in KINDS}
        memory["forks of one without torch"] = in_fresh_process(
            __file__, "fork", folder, str(given.processes), environment=_PASSIVE
        )
    found = {
        "load_ms": {kind: result["load_ms"] for kind, result in measured.items()},
        "load_ms without opening torch's library": measured["without torch"][
            "load_without_library_ms"
        ],
        f"memory of {given.processes} processes, MB each": memory,
    }
    print(json.dumps(found, indent=2))
    keep("shared", {**found, "subjects": measured})


def together(folder: str, kind: str, count: int) -> Mapping[str, float]:
    """Run some processes at once; medians of the megabytes that each holds."""
    command = [sys.executable, __file__, "hold", folder, kind]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pipes["env"] = {**os.environ, **_PASSIVE}
    running = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for process in running:
        process.stdout.readline()  # it has made its call
    found = [_asked(process) for process in running]
    for process in running:
        process.communicate()
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def _asked(process: Any) -> dict[str, float]:
    process.stdin.write("now\n")
    process.stdin.flush()
    answer: dict[str, float] = json.loads(process.stdout.readline())
    return answer


def build(folder: str, layers: str) -> dict[str, Any]:
    """Compile and save the program, a checkpoint and prepared weights."""
    import torch
    from models import llama, tokens

    import hotstart

    model = llama(int(layers))
    axis = hotstart.Dim("seq", min=2, max=512)
    kwargs, shapes = {"input_ids": tokens()}, {"input_ids": {1: axis}}
    program = hotstart.compile(model, kwargs=kwargs, dynamic_shapes=shapes)
    program.save(Path(folder, "model.hot"))
    torch.save(model.state_dict(), Path(folder, "model.pt"))
    program.save_weights(Path(folder, "model.weights"))
    return {}


def load(folder: str, kind: str) -> dict[str, Any]:
    """Load the program, and make a call."""
    ids = _imported(kind)
    begun = time.perf_counter()
    program = _loaded(folder, kind)
    loaded = time.perf_counter()
    result = program(input_ids=ids)
    called = time.perf_counter()
    phases = program.report.phases
    return {
        "load_ms": 1e3 * (loaded - begun),
        "load_without_library_ms": 1e3 * (loaded - begun - phases.get("library", 0.0)),
        "first_call_ms": 1e3 * (called - loaded),
        "sum": math.fsum(_flat(result.logits.tolist())),
    }


def hold(folder: str, kind: str) -> None:
    """Load and call, wait until all have, and say what memory this process holds."""
    ids = _imported(kind)
    if kind != "import torch":
        program = _loaded(folder, kind)
        program(input_ids=ids)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(_memory()), flush=True)
    sys.stdin.read()


def _imported(kind: str) -> Any:
    """Import what a process of some kind has imported before it loads; ids for its call."""
    if kind == "without torch":
        return [list(range(16))]
    import torch

    return torch.arange(16)[None]


def _loaded(folder: str, kind: str) -> Any:
    import hotstart

    weights = Path(folder, "model.pt" if kind == "checkpoint" else "model.weights")
    program = hotstart.load(Path(folder, "model.hot"), weights=weights)
    if kind == "without torch":
        assert "torch" not in sys.modules
    return program


def _flat(numbers: Any) -> Iterator[float]:
    if isinstance(numbers, list):
        for each in numbers:
            yield from _flat(each)
    else:
        yield numbers


def fork(folder: str, count: int) -> dict[str, float]:
    """Load without torch, then call in forks; medians of the megabytes that each holds."""
    ids, program = _imported("without torch"), _loaded(folder, "without torch")
    asking: list[int] = []
    answers: list[int] = []
    for _ in range(count):
        (asked, ask), (answered, answer) = os.pipe(), os.pipe()
        if os.fork() == 0:
            program(input_ids=ids)
            os.write(answer, b"x")
            os.read(asked, 1)
            os.write(answer, json.dumps(_memory()).encode())
            os.read(asked, 1)
            os._exit(0)
        asking.append(ask)
        answers.append(answered)
    for answered in answers:
        os.read(answered, 1)
    found: list[dict[str, float]] = []
    for ask, answered in zip(asking, answers, strict=True):
        os.write(ask, b"x")
        found.append(json.loads(os.read(answered, 1 << 12)))
    for ask in asking:
        os.write(ask, b"x")
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def _memory() -> dict[str, float]:
    """Megabytes of this process, as Linux counts them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)
    }
    return {name: sum(sizes[row] for row in rows) * 1024 / 1e6 for name, rows in _ROWS.items()}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build", folder, layers]:
            print(json.dumps(build(folder, layers)))
        case ["load", folder, kind]:
            print(json.dumps(load(folder, kind)))
        case ["fork", folder, processes]:
            print(json.dumps(fork(folder, int(processes))))
        case ["hold", folder, kind]:
            hold(folder, kind)
        case _:
            main()
