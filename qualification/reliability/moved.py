"""A cache that is copied, moved and linked to: found again, nothing is compiled.

`python -m qualification.reliability.moved FOLDER ROUNDS` prints what was found as JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from qualification.reliability.starting import (
    CASES,
    Start,
    put_away_programs,
    start,
    start_cases,
    warm,
)


@dataclass
class Found:
    """What came of it.

    Attributes:
        places: how often a cache was copied, moved or linked to.
        starts: starts there that had to find everything.
        missed: those that did not.
        wrong: those with other results than the model's.
        pieces_missed: starts without programs that did not find all pieces.
    """

    places: int = 0
    starts: int = 0
    missed: int = 0
    wrong: int = 0
    pieces_missed: int = 0


def run(root: Path, rounds: int) -> Found:
    """Fill a cache, and start from wherever it goes."""
    warm()
    place, found = root / "first", Found()
    assert all(did.right for did in start_cases(place))
    for number in range(rounds):
        way = WAYS[number % len(WAYS)]
        place = way(place, root / f"a folder {number}" / "deep" / "er")
        did = [start(Start(place, case, policy="require")) for case in CASES]
        found.places += 1
        found.starts += len(did)
        found.missed += sum(not one.loaded for one in did)
        found.wrong += sum(not one.right and one.loaded for one in did)
    put_away_programs(place)
    found.pieces_missed = sum(did.compiled or not did.right for did in start_cases(place))
    return found


def _copied(place: Path, target: Path) -> Path:
    return shutil.copytree(place, target)


def _moved(place: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True)
    return place.rename(target)


def _linked(place: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True)
    target.symlink_to(place.resolve())
    return target


WAYS: tuple[Callable[[Path, Path], Path], ...] = (_copied, _moved, _linked, _copied)
"""A link is copied next, since it would not be what moves."""


if __name__ == "__main__":
    print(json.dumps(asdict(run(Path(sys.argv[1]), int(sys.argv[2])))))
