"""A place that is full: starts go on, nothing half-written is there, and later all is kept again.

`python -m qualification.reliability.full FOLDER ROUNDS [mounted]` prints what was found as JSON.
Mounted, a small file system is made for it, in a name space that ends with the process; else the
system calls that would fail are made to.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

from hotstart.artifact import container
from hotstart.cache.tidying import GRACE_S
from hotstart.errors import ArtifactError
from qualification.reliability.starting import CASES, Did, Start, start, start_cases, warm

SIZE = 256 << 10
LARGEST_ROOM = 64 << 10
APART = ["unshare", "--map-root-user", "--mount"]
"""How a process gets mounts of its own, without being root."""


@dataclass
class Found:
    """What came of it.

    Attributes:
        rounds: how often a cache was filled that had not enough room.
        starts: how many starts there were, while there was no room and after.
        wrong: starts with other results than the model's.
        failed: starts that raised or died.
        short: rounds in which something could not be kept.
        half: files that were not whole afterwards, and unfinished ones.
        lasting: programs that were not kept though there was room again.
        stale: rounds in which files that nobody used any more did not make room.
    """

    rounds: int = 0
    starts: int = 0
    wrong: int = 0
    failed: int = 0
    short: int = 0
    half: int = 0
    lasting: int = 0
    stale: int = 0


def run(root: Path, rounds: int, mounted: bool = False, seed: int = 0) -> Found:
    """Start with less room than is needed, many times, then with enough."""
    root.mkdir(parents=True, exist_ok=True)
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(root)]
        subprocess.run(command, check=True)
    warm()
    found, drawn = Found(), random.Random(seed)
    limited = _ballast if mounted else _quota
    for _ in range(rounds):
        place = root / "cache"
        room = drawn.randrange(0, LARGEST_ROOM, 4096)
        with limited(root, room):
            _count(found, start_cases(place))
        found.rounds += 1
        found.half += _half(place)
        found.short += _count(found, start_cases(place)) < len(CASES)
        found.lasting += len(CASES) - _count(found, start_cases(place))
        _age(place)
        with limited(root, 0):
            later = Start(place, "plain", extra_key="later")
            found.stale += _count(found, [start(later), start(later)]) < 1
        found.half += _half(place)
        shutil.rmtree(place)
    return found


def can_mount() -> bool:
    """Whether this user may mount a file system in a name space of its own."""
    command = [*APART, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _count(found: Found, did: Sequence[Did]) -> int:
    """Count what came of starts; how many of them found their program."""
    found.starts += len(did)
    found.wrong += sum(not one.right and not one.error for one in did)
    found.failed += sum(bool(one.error) for one in did)
    return sum(one.loaded for one in did)


def _half(place: Path) -> int:
    files = [file for file in place.rglob("*/*/*") if file.is_file()]
    return sum(not _whole(file) for file in files if file.parent.name != "locks")


def _whole(file: Path) -> bool:
    try:
        container.read(file)
    except ArtifactError:
        return False
    return not file.name.startswith(container.TEMPORARY)


def _age(place: Path) -> None:
    """Make it that nobody has used what is there for a while."""
    then = time.time() - 2 * GRACE_S
    for file in place.rglob("*"):
        if file.is_file():
            os.utime(file, (then, then))


# --- no room --------------------------------------------------------------------------------------


@contextmanager
def _ballast(root: Path, room: int) -> Iterator[None]:
    """Fill a small file system but for some room."""
    ballast = root / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(max(_free(root) - room, 0)))
    yield
    ballast.unlink()


def _free(root: Path) -> int:
    system = os.statvfs(root)
    return system.f_bavail * system.f_frsize


@contextmanager
def _quota(root: Path, room: int) -> Iterator[None]:
    """Let no files be written that together need more than some room, beyond what is there."""
    allowed = _used(root) + room
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if _used(root) > allowed:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        sync(descriptor)

    with patch.object(os, "fsync", fsync):  # children have it too
        yield


def _used(root: Path) -> int:
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())


if __name__ == "__main__":
    if sys.argv[3:] == ["mounted"]:
        os.execvp(APART[0], [*APART, sys.executable, "-m", __spec__.name, *sys.argv[1:3], "inside"])
    print(json.dumps(asdict(run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["inside"]))))
