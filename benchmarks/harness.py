"""Run measurements in fresh processes with empty caches, in turns, and keep the medians."""

from __future__ import annotations

import contextlib
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
    log: Path | None = None,
    limit_s: float | None = None,
    python: str | Path = sys.executable,
) -> dict[str, Any]:
    """Run `script` with empty cache folders; the last line it prints is its result, as JSON.

    Processes that are given the same `caches` folder share what is cached in it. `environment` is
    set over the variables of this process. What the process writes to stderr goes to `log`, if
    there is one; a process that takes longer than `limit_s` seconds is stopped. `python` is the
    interpreter.

    Raises:
        subprocess.SubprocessError: the process failed, or took too long.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        errors = stack.enter_context(log.open("a")) if log else None
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
            [python, script, *arguments],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            check=True,
            text=True,
            timeout=limit_s,
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

    found = {**machine(), "torch": torch.__version__}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": found, **report}, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


def machine() -> dict[str, Any]:
    """The processor, how many cores of it this process may use, and the Python."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Others:
    """How many cores other programs keep busy while this process measures.

    Time that the host gave to other guests counts as theirs. Reads Linux' `/proc/stat`.
    """

    def __init__(self) -> None:
        self._started = self._now()

    def cores(self) -> float:
        """Cores that others kept busy since this object was made, on average."""
        wall, all_s, own_s = (
            now - then for now, then in zip(self._now(), self._started, strict=True)
        )
        return max(0.0, (all_s - own_s) / wall)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds on the clock, that all cores were busy, and that this process kept them so."""
        first = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, _idle, _wait, irq, soft, steal = map(int, first.split()[1:9])
        ticks = user + nice + system + irq + soft + steal
        return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


def busy_cores(seconds: float = 2.0) -> float:
    """Cores that other programs keep busy now, watched for some seconds."""
    others = Others()
    time.sleep(seconds)
    return others.cores()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
