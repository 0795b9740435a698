"""Two machines' processes that write into one shared folder: nothing is lost, nothing is wrong.

`python -m qualification.reliability.machines FOLDER SECONDS [no-locks]` prints what was found as
JSON. The machines differ in name, home, working directory, umask, time zone, process numbers (both
count from 1 where the system lets them) and CPU: what the first compiles, the second may not run.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotstart import Store
from hotstart.artifact import disk, fingerprint
from qualification.reliability import places
from qualification.reliability.starting import CASES, Start, start, start_all, warm

APART = ["unshare", "--map-root-user", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
"""How a process gets a name and process numbers of its own, without being root."""

MACHINES = ("new", "old")
FEWEST = 2
"""So often each starts three, however little time there is."""

LATER_EXTENSIONS = 4
"""So many of the extensions of this CPU the second machine has not."""


@dataclass(frozen=True)
class Work:
    """What one machine does: starts with new and old keys until a time, then all of them again."""

    place: Path
    name: str
    seconds: float
    locks: bool


def run(root: Path, seconds: float, locks: bool) -> dict[str, Any]:
    """Let both machines work on one folder; what came of it, of both together."""
    place, apart = root / "shared", _can_be_apart()
    root.mkdir(parents=True, exist_ok=True)
    machines = [_machine(root, name, seconds, locks, apart) for name in MACHINES]
    for machine in machines:  # both are there before one begins
        assert machine.stdout is not None
        assert machine.stdout.readline() == "ready\n"
    told = [json.loads(machine.communicate("go\n")[0]) for machine in machines]
    names = ("starts", "compiled", "wrong", "failed", "keys", "lost")
    found = {name: sum(one[name] for one in told) for name in names}
    return {**found, "apart": apart, "seconds": seconds, **_left(place)}


def _machine(
    root: Path, name: str, seconds: float, locks: bool, apart: bool
) -> subprocess.Popen[str]:
    home = root / name
    home.mkdir()
    repository = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "HOME": str(home),
        "HOSTNAME": name,
        "TZ": "Asia/Tokyo" if name == "old" else "UTC",
        "PYTHONPATH": os.pathsep.join([repository, *sys.path]),
    }
    arguments = ["-m", "qualification.reliability.machines", str(root), str(seconds)]
    how = ["locks" if locks else "no-locks", name]
    return subprocess.Popen(
        [*(APART if apart else []), sys.executable, *arguments, *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment,
        umask=0o077 if name == "old" else 0o002,
    )


def _can_be_apart() -> bool:
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _left(place: Path) -> dict[str, int]:
    """What both left in the folder."""
    damaged = sum(not places.whole(file) for file in places.files(place))
    return {
        "damaged": damaged + len(Store(place).folder.in_quarantine()),
        "unfinished": sum(1 for _ in place.rglob(f"{disk.TEMPORARY}*")),
    }


# --- on a machine ---------------------------------------------------------------------------------


def _work(work: Work) -> dict[str, Any]:
    with suppress(OSError):
        socket.sethostname(work.name)
    if work.name == "old":
        _forget_extensions()
    if not work.locks:
        fcntl.flock = _no_locks
    warm()
    print("ready", flush=True)
    sys.stdin.readline()
    drawn, deadline = random.Random(work.name), time.monotonic() + work.seconds
    keys: set[tuple[str, str]] = set()
    found = {"starts": 0, "compiled": 0, "wrong": 0, "failed": 0}
    batch = 0
    while batch < FEWEST or time.monotonic() < deadline:
        # Two that both machines come to at about the same time, and one of before.
        asked = [("plain", str(batch)), ("double", str(batch))]
        asked.append((drawn.choice(CASES), str(drawn.randrange(batch + 1))))
        did = start_all([Start(work.place, case, extra_key=key) for case, key in asked])
        keys |= set(asked)
        found["starts"] += len(did)
        found["compiled"] += sum(not one.loaded and not one.error for one in did)
        found["wrong"] += sum(not one.right and not one.error for one in did)
        found["failed"] += sum(bool(one.error) for one in did)
        batch += 1
    again = [start(Start(work.place, case, extra_key=key)) for case, key in sorted(keys)]
    lost = sum(not one.loaded or not one.right for one in again)
    return {**found, "keys": len(keys), "lost": lost}


def _forget_extensions() -> None:
    known = fingerprint.instructions()[:-LATER_EXTENSIONS]
    fingerprint.instructions = lambda: known


def _no_locks(*_: Any) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


if __name__ == "__main__":
    root, seconds, how, name = [Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:], "", ""][:4]
    if name:
        print(json.dumps(_work(Work(root / "shared", name, seconds, how != "no-locks"))))
    else:
        print(json.dumps(run(root.resolve(), seconds, how != "no-locks")))
