"""Versions of hotstart that share a folder: each finds its own, and leaves the others' alone.

`python -m qualification.reliability.versions FOLDER STARTS` prints what was found as JSON. Copies
of the source tree are made newer: one with another version number, whose entries say more, and one
with another format of files besides.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hotstart
from qualification.reliability import forks, places
from qualification.reliability.starting import CASES, Start, start, warm

Change = tuple[str, str, str]
"""A file of the source tree, a text in it, and what replaces that."""

_NEXT: tuple[Change, ...] = (
    ("version.py", 'VERSION = "0.1.0.dev0"', 'VERSION = "0.2.0"'),
    ("cache/entries.py", "    bytes: int\n", "    bytes: int\n    more: str\n"),
    ("cache/store.py", "program, size, time", 'program, size, "more", time'),
    (
        "artifact/manifest.py",
        "    check: dict[str, Any]\n",
        "    check: dict[str, Any]\n    more: str\n",
    ),
    ("artifact/write.py", '"check": {}, ', '"check": {}, "more": "more", '),
)
_LATER: tuple[Change, ...] = (
    *(change for change in _NEXT if change[0] != "version.py"),
    ("version.py", 'VERSION = "0.1.0.dev0"', 'VERSION = "1.0.0"'),
    ("artifact/header.py", "\nFORMAT = 1\n", "\nFORMAT = 3\n"),
)
VERSIONS = {"this": (), "next": _NEXT, "later": _LATER}

KEPT = 4


@dataclass
class Found:
    """What came of it.

    Attributes:
        starts: starts of one version after another, in no order.
        first: those that had to compile, as the version had not had this program yet.
        again: those that compiled though it had.
        wrong: those with other results than the model's.
        failed: those that raised or died.
        damaged: files that a version took for damaged, in a start or in `hotstart cache verify`.
        gone: files that were there once and are not any more.
        over: files beyond the limit of the format that a version tidied up.
        touched: files of another format that were removed by that.
    """

    starts: int = 0
    first: int = 0
    again: int = 0
    wrong: int = 0
    failed: int = 0
    damaged: int = 0
    gone: int = 0
    over: int = 0
    touched: int = 0


def run(root: Path, starts: int, seed: int = 0) -> Found:
    """Start versions one after the other on one folder; then let each tidy up."""
    found, drawn, place = Found(), random.Random(seed), root / "cache"
    running = {name: _version(root / name, place, VERSIONS[name]) for name in VERSIONS}
    had: set[tuple[str, str]] = set()
    seen: set[Path] = set()
    for _ in range(starts):
        version, case = drawn.choice(list(VERSIONS)), drawn.choice(CASES)
        did = _ask(running[version], "start", case)
        found.starts += 1
        found.first += (version, case) not in had
        found.again += (version, case) in had and not did["loaded"]
        found.wrong += not did["right"] and not did["error"]
        found.failed += bool(did["error"])
        had.add((version, case))
        seen |= _files(place)
    found.gone = len(seen - _files(place))
    found.damaged = sum(_ask(one, "verify") for one in running.values())
    found.damaged += sum(1 for _ in place.glob("*/quarantine/*"))
    for name in VERSIONS:
        _tidy(running[name], place, "v3" if name == "later" else "v1", found)
    for one in running.values():
        one.communicate()
    return found


def _version(tree: Path, place: Path, changes: Sequence[Change]) -> subprocess.Popen[str]:
    """A process that starts what it is asked to, with a source tree that was changed."""
    source = shutil.copytree(Path(hotstart.__file__).parent, tree / "hotstart")
    for name, old, new in changes:
        text = (source / name).read_text()
        assert text.count(old) == 1, (name, old)
        (source / name).write_text(text.replace(old, new))
    path = os.pathsep.join([str(tree), str(Path(__file__).parents[2]), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "qualification.reliability.versions", str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def _ask(version: subprocess.Popen[str], *words: str) -> Any:
    assert version.stdin is not None
    assert version.stdout is not None
    print(*words, file=version.stdin, flush=True)
    return json.loads(version.stdout.readline())


def _tidy(version: subprocess.Popen[str], place: Path, own: str, found: Found) -> None:
    before = _files(place)
    places.age(before)
    _ask(version, "tidy")
    after = _files(place)
    found.over += max(sum(file.parents[2].name == own for file in after) - KEPT, 0)
    found.touched += sum(file.parents[2].name != own for file in before - after)


def _files(place: Path) -> set[Path]:
    apart = ("quarantine", "locks")
    return {file for file in place.glob("v*/*/*/*") if file.parents[1].name not in apart}


# --- a version ------------------------------------------------------------------------------------


def _serve(place: Path) -> None:
    """Do what is asked for, line by line."""
    assert Path(hotstart.__file__).parents[1].parent == place.parent
    warm()
    for line in sys.stdin:
        match line.split():
            case ["start", case]:
                did = start(Start(place, case))
                answer: Any = {**asdict(did), "loaded": did.loaded}
            case ["verify"]:
                answer = forks.answer(partial(places.command, place, "verify"))
            case _:
                tidy = partial(places.command, place, "gc", "--max-files", str(KEPT))
                answer = forks.answer(tidy)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(asdict(run(Path(sys.argv[1]).resolve(), int(sys.argv[2])))))
    else:
        _serve(Path(sys.argv[1]))
