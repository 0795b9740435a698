"""A cache with many programs: how long a start and `hotstart cache ls` take.

`python -m qualification.reliability.many FOLDER COUNT` prints what was found as JSON.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hotstart import Store
from hotstart.artifact import container
from hotstart.cache.entries import ENTRIES, PROGRAMS
from qualification.reliability import forks
from qualification.reliability.starting import Start, start, warm

TIMES = 7


@dataclass
class Found:
    """What came of it; milliseconds are medians.

    Attributes:
        programs: how many there are, of as many keys.
        right: whether all starts found the program, and it gave the results of the model.
        start_ms: a process that has imported torch finds and loads one of them, and runs it.
        miss_ms: one that asks for something else, and must not compile, is told what is nearest.
        ls_ms: `hotstart cache ls` as a process of its own.
        stats_ms: `hotstart cache stats` as well.
        tidy_ms: a process looks whether there is too much.
    """

    programs: int
    right: bool
    start_ms: float
    miss_ms: float
    ls_ms: float
    stats_ms: float
    tidy_ms: float


def run(place: Path, count: int) -> Found:
    """Fill a cache with one program, and with others until there are so many; then use it."""
    warm()
    wanted = Start(place, "plain")
    assert start(wanted).right
    _fill(place, count - 1)
    did = [start(wanted) for _ in range(TIMES)]
    other = Start(place, "plain", extra_key="another", policy="require")
    return Found(
        programs=len(Store(place).entries.all()),
        right=all(one.loaded and one.right for one in did),
        start_ms=_median_ms(lambda: start(wanted)),
        miss_ms=_median_ms(lambda: start(other)),
        ls_ms=_median_ms(partial(_command, place, "ls")),
        stats_ms=_median_ms(partial(_command, place, "stats")),
        tidy_ms=_median_ms(lambda: forks.answer(lambda: Store(place).folder.tidy().kept_files)),
    )


def _fill(place: Path, count: int) -> None:
    """Add programs that are the first under other names, with keys of their own."""
    store = Store(place)
    (entry,) = store.entries.all()
    file = container.read(store.folder.path(ENTRIES, entry.name))
    data = store.folder.path(PROGRAMS, entry.program).read_bytes()
    for number in range(count):
        digest = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
        made = replace(entry, key=digest, program=digest * 2, created=entry.created - number - 1)
        parts = container.file_parts({"entry": msgspec.to_builtins(made)}, file.blobs)
        # Not through the folder, which syncs every file.
        _put(store.folder.path(ENTRIES, made.name), b"".join(parts))
        _put(store.folder.path(PROGRAMS, made.program), data)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _command(place: Path, command: str) -> None:
    words = [sys.executable, "-m", "hotstart", "cache", command, "--cache", str(place)]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMES):
        started = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(asdict(run(Path(sys.argv[1]), int(sys.argv[2])))))
