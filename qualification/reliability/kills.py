"""Writers of one folder that are killed at random moments: what is there is whole, and stays.

`python -m qualification.reliability.kills FOLDER ROUNDS` prints what was found as JSON. It imports
no torch, so that its processes start in no time.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hotstart.artifact import disk
from hotstart.cache.folder import Folder
from hotstart.cache.tidying import LEFTOVER_S
from qualification.reliability.forks import fork, wait

WRITERS = 8
LARGEST = 400_000
LONGEST_S = 0.06


@dataclass
class Found:
    """What came of it.

    Attributes:
        rounds: how often all writers were killed.
        killed: how many writers.
        committed: files that a writer was told are written.
        lost: how many of those were not there afterwards.
        damaged: files that were there, but not with the contents they were written with.
        leftovers: unfinished files that killed writers left behind.
        left_after_tidying: how many of those were there after tidying up.
    """

    rounds: int = 0
    killed: int = 0
    committed: int = 0
    lost: int = 0
    damaged: int = 0
    leftovers: int = 0
    left_after_tidying: int = 0


def run(root: Path, rounds: int, seed: int = 0) -> Found:
    """Kill all writers of a folder, many times, and look at what they left."""
    found = Found()
    drawn = random.Random(seed)
    folder = Folder(root, strict=True)
    for _ in range(rounds):
        committed = _round(root, drawn)
        found.rounds += 1
        found.killed += WRITERS
        found.committed += len(committed)
        there = {stored.name for stored in folder.files()}
        found.lost += len(committed - there)
        for name in there:
            data = folder.read("objects", name)
            found.damaged += data is None or hashlib.sha256(data).hexdigest() != name
            folder.remove("objects", name)
    leftovers = [file for file in root.rglob(f"{disk.TEMPORARY}*") if file.is_file()]
    found.leftovers = len(leftovers)
    then = time.time() - 2 * LEFTOVER_S
    for file in leftovers:
        os.utime(file, (then, then))
    folder.tidy()
    found.left_after_tidying = sum(file.exists() for file in leftovers)
    return found


def _round(root: Path, drawn: random.Random) -> set[str]:
    """The files that writers were told are written, before all of them were killed."""
    reading, writing = os.pipe()
    seeds = [drawn.random() for _ in range(WRITERS)]
    writers = [fork(partial(_write, root, writing, seed)) for seed in seeds]
    os.close(writing)
    time.sleep(drawn.uniform(0, LONGEST_S))
    for writer in writers:
        os.kill(writer, signal.SIGKILL)
    assert set(wait(writers)) == {-signal.SIGKILL}
    with os.fdopen(reading, "rb") as told:
        names = told.read().decode()
    return {names[start : start + 64] for start in range(0, len(names), 64)}


def _write(root: Path, told: int, seed: float) -> None:
    drawn = random.Random(seed)
    folder = Folder(root, strict=True)
    while True:
        data = drawn.randbytes(drawn.randrange(LARGEST))
        name = hashlib.sha256(data).hexdigest()
        half = len(data) // 2
        if folder.write("objects", name, [data[:half], data[half:]]):
            os.write(told, name.encode())  # all or nothing, as it is short


if __name__ == "__main__":
    print(json.dumps(asdict(run(Path(sys.argv[1]), int(sys.argv[2])))))
