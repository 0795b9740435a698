"""Run measurements in fresh processes with empty caches, in turns, and keep the medians."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

_UNCOUNTED = 10
"""Rounds of calls before those that count."""


def in_fresh_process(
    script: str,
    *arguments: str,
    caches: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `script` with empty cache folders; the last line it prints is its result, as JSON.

    Processes that are given the same `caches` folder share what is cached in it. `environment` is
    set over the variables of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = caches or Path(folder)
        temporary = root / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        variables = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(root / "inductor"),
            "TMPDIR": str(temporary),
            "HF_HUB_OFFLINE": "1",
            # Modules are imported as they are when installed, from byte code.
            "PYTHONDONTWRITEBYTECODE": "",
            **(environment or {}),
        }
        done = subprocess.run(
            [sys.executable, script, *arguments],
            env=variables,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def in_turns(
    subjects: Mapping[str, Callable[[], dict[str, Any]]], rounds: int | Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Run every subject once a round; medians of the numbers, and all the values behind them.

    `rounds` is one number, or one for each subject: those with fewer sit out the last rounds.
    """
    rounds_of = dict.fromkeys(subjects, rounds) if isinstance(rounds, int) else rounds
    last = max(rounds_of.values())
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
    for turn in range(last):
        for name, subject in subjects.items():
            if turn < rounds_of[name]:
                print(f"round {turn + 1} of {last}: {name}", file=sys.stderr, flush=True)
                runs[name].append(subject())
    return {name: {**medians(results), "runs": results} for name, results in runs.items()}


def call_in_turns(*calls: Callable[[], Any], rounds: int) -> list[list[float]]:
    """The seconds of every call, one of each a round; the first rounds do not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(_UNCOUNTED + rounds):
        for call, kept in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if turn >= _UNCOUNTED:
                kept.append(time.perf_counter() - started)
    return seconds


def medians(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of every number that all results have."""
    numbers = [key for key, value in results[0].items() if isinstance(value, int | float)]
    return {key: statistics.median(result[key] for result in results) for key in numbers}


def keep(name: str, report: Mapping[str, Any]) -> None:
    """Write a report to `results/<name>.json`, with the machine it was measured on."""
    import torch

    machine = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine, **report}, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
