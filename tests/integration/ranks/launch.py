"""Run a function in several processes that are ranks of `torch.distributed`, over gloo.

`python -m tests.integration.ranks.launch MODULE FUNCTION RANKS FOLDER` forks a process for each
rank. The function takes a `Rank` and returns what JSON can hold; a list of what all have returned
is printed. A rank that raises returns the error as text, and one that is killed returns None.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

LIMIT_S = 300.0
"""Ranks that take longer hang, and are killed."""


@dataclass(frozen=True)
class Rank:
    """One of the processes.

    Attributes:
        number: its rank.
        size: how many there are.
        folder: a folder that all of them share.
    """

    number: int
    size: int
    folder: Path

    @property
    def is_first(self) -> bool:
        return self.number == 0


def ranks(
    python: Callable[..., str], function: Callable[[Rank], Any], size: int, folder: Path
) -> list[Any]:
    """What a function of a module returns in each of some processes, by rank."""
    module = sys.modules[function.__module__].__name__
    given = (module, function.__name__, size, folder)
    printed = python(
        "-m", __name__, *given, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", PYTHONWARNINGS=""
    )
    found: list[Any] = json.loads(printed.strip().splitlines()[-1])
    return found


def main(module: str, name: str, size: str, folder: str) -> None:
    """Fork the ranks, wait for them, and print what they return."""
    function = getattr(importlib.import_module(module), name)
    every = [Rank(number, int(size), Path(folder)) for number in range(int(size))]
    children = [_fork(function, rank) for rank in every]
    _wait(children)
    results = [_result(rank) for rank in every]
    print(json.dumps([json.loads(r.read_text()) if r.exists() else None for r in results]))


def _result(rank: Rank) -> Path:
    return rank.folder / f"result_{rank.number}.json"


def _fork(function: Callable[[Rank], Any], rank: Rank) -> int:
    child = os.fork()
    if child:
        return child
    try:
        faulthandler.enable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        import torch.distributed as dist

        store = dist.FileStore(str(rank.folder / "rendezvous"), rank.size)
        dist.init_process_group(
            "gloo",
            store=store,
            rank=rank.number,
            world_size=rank.size,
            timeout=timedelta(seconds=LIMIT_S),
        )
        try:
            returned = function(rank)
        except Exception as error:  # noqa: BLE001  the test says whether it is the right one
            returned = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        _result(rank).write_text(json.dumps(returned))
        sys.stdout.flush()
    finally:
        os._exit(0)


def _wait(children: list[int]) -> None:
    """Wait for all ranks, and kill those that hang."""
    end = time.monotonic() + LIMIT_S
    waiting = set(children)
    while waiting and time.monotonic() < end:
        waiting -= {child for child in waiting if os.waitpid(child, os.WNOHANG)[0]}
        time.sleep(0.02)
    for child in waiting:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGABRT)  # where it was is printed
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
