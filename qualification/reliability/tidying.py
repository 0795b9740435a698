"""A folder that is written to, read from and tidied up at once: what is in use is not removed.

`python -m qualification.reliability.tidying FOLDER SECONDS` prints what was found as JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hotstart.cache.folder import Folder
from hotstart.cache.tidying import GRACE_S, Limits
from qualification.reliability.forks import fork, wait

WRITERS, READERS, TIDIERS = 2, 2, 2
SIZE = 20_000
KEPT = 40
"""Files that the limits leave room for; many more are written."""


@dataclass
class Found:
    """What came of it.

    Attributes:
        held: files that readers had open while others tidied up.
        damaged: how many of those had other contents than they were written with.
        claimed: files that readers opened a while after they had said that they use them.
        lost: how many of those were gone by then.
        removed: files that were removed because there were too many.
        left: files that were left in the end, after one last tidying up.
    """

    held: int = 0
    damaged: int = 0
    claimed: int = 0
    lost: int = 0
    removed: int = 0
    left: int = 0


def run(root: Path, seconds: float) -> Found:
    """Let all of them work for a while."""
    Folder(root, strict=True).write("objects", hashlib.sha256(b"").hexdigest(), [b""])
    reading, writing = os.pipe()
    works = [*[_write] * WRITERS, *[_hold] * READERS, *[_claim] * READERS, *[_tidy] * TIDIERS]
    deadline = time.monotonic() + seconds
    children = [fork(partial(work, root, deadline, writing, n)) for n, work in enumerate(works)]
    os.close(writing)
    with os.fdopen(reading) as told:
        counted = [json.loads(line) for line in told]
    assert set(wait(children)) == {0}
    found = Found(**{name: sum(one.get(name, 0) for one in counted) for name in asdict(Found())})
    found.left = Folder(root).tidy(Limits(files=KEPT)).kept_files
    return found


def _write(root: Path, deadline: float, told: int, seed: int) -> None:
    folder, drawn = Folder(root, strict=True), random.Random(seed)
    while time.monotonic() < deadline:
        data = drawn.randbytes(SIZE)
        name = hashlib.sha256(data).hexdigest()
        folder.write("objects", name, [data])
        # As if it had been written long ago: nobody uses it now.
        then = time.time() - 3 * GRACE_S
        os.utime(folder.path("objects", name), (then, then))
        time.sleep(0.002)


def _hold(root: Path, deadline: float, told: int, seed: int) -> None:
    folder, drawn, found = Folder(root, strict=True), random.Random(seed), Found()
    while time.monotonic() < deadline:
        name = drawn.choice([stored.name for stored in folder.files()])
        with (
            contextlib.suppress(FileNotFoundError),
            folder.path("objects", name).open("rb") as file,
        ):
            time.sleep(drawn.uniform(0, 0.02))
            found.held += 1
            found.damaged += hashlib.sha256(file.read()).hexdigest() != name
    _tell(told, found)


def _claim(root: Path, deadline: float, told: int, seed: int) -> None:
    folder, drawn, found = Folder(root, strict=True), random.Random(seed), Found()
    while time.monotonic() < deadline:
        name = drawn.choice([stored.name for stored in folder.files()])
        folder.used("objects", name)
        if not folder.path("objects", name).exists():
            continue  # it was gone before it was in use
        time.sleep(drawn.uniform(0, 0.02))
        found.claimed += 1
        found.lost += folder.read("objects", name) is None
    _tell(told, found)


def _tidy(root: Path, deadline: float, told: int, seed: int) -> None:
    folder, found = Folder(root, strict=True), Found()
    while time.monotonic() < deadline:
        found.removed += len(folder.tidy(Limits(files=KEPT)).removed)
        time.sleep(0.01)
    _tell(told, found)


def _tell(told: int, found: Found) -> None:
    os.write(told, json.dumps(asdict(found)).encode() + b"\n")


if __name__ == "__main__":
    print(json.dumps(asdict(run(Path(sys.argv[1]), float(sys.argv[2])))))
