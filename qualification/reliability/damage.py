"""Files of a cache that are damaged in every way: noticed, never used, and made anew.

`python -m qualification.reliability.damage FOLDER ROUNDS [COMPILER]` prints what was found as JSON.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hotstart import Store
from qualification.reliability import forks, places
from qualification.reliability.starting import CASES, Compiler, put_away_programs, start_cases, warm

HEADER = 160

Damage = Callable[[Path, Path, random.Random], list[Path]]


@dataclass
class Found:
    """What came of one kind of damage.

    Attributes:
        rounds: how often a file was damaged so.
        noticed: how often starts put it away.
        verified: how often only `hotstart cache verify` did, as no start reads what was hit.
        ignored: how often it stayed where it was, of no use to anybody, and was done without.
        wrong: starts with other results than the model's.
        failed: starts that raised or died.
        lasting: rounds after which a start did not find everything again.
    """

    rounds: int = 0
    noticed: int = 0
    verified: int = 0
    ignored: int = 0
    wrong: int = 0
    failed: int = 0
    lasting: int = 0


def run(
    root: Path, rounds: int, compiler: Compiler = "op_by_op", seed: int = 0
) -> dict[str, Found]:
    """Damage one file after the other, each in a copy of its own; what came of it, by damage."""
    warm(compiler)
    filled = root / "filled"
    assert all(did.right for did in start_cases(filled, compiler))
    files = sorted(places.files(filled))
    drawn, found = random.Random(seed), {name: Found() for name in DAMAGES}
    ways = list(DAMAGES)
    for number in range(rounds):
        # Neighbours differ in both, and every pair comes about.
        way = ways[(number + number // len(ways)) % len(ways)]
        file = files[number % len(files)].relative_to(filled)
        place = shutil.copytree(filled, root / "copy")
        _round(place, place / file, compiler, DAMAGES[way], drawn, found[way])
        shutil.rmtree(place)
    return found


def _round(
    place: Path, file: Path, compiler: Compiler, damage: Damage, drawn: random.Random, found: Found
) -> None:
    piece = file.parent.parent.name == "pieces"
    cases = CASES[:2] if piece else CASES  # the first two have all pieces
    if piece:
        put_away_programs(place)
    hurt = damage(place, file, drawn)
    first = start_cases(place, compiler, cases)
    away = Store(place).folder.in_quarantine()
    noticed = any(f"{one.parent.parent.name}-{one.name}" in away for one in hurt)
    if piece:
        put_away_programs(place)
    again = start_cases(place, compiler, cases)
    found.rounds += 1
    found.noticed += noticed
    found.wrong += sum(not did.right and not did.error for did in (*first, *again))
    found.failed += sum(bool(did.error) for did in (*first, *again))
    found.lasting += any(did.compiled or not (piece or did.loaded) for did in again)
    if not noticed:
        verified = bool(forks.answer(partial(places.command, place, "verify")))
        found.verified += verified
        found.ignored += not verified


# --- damages --------------------------------------------------------------------------------------


def _contents(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    """Change the contents of a file."""

    def hurt(place: Path, file: Path, drawn: random.Random) -> list[Path]:
        data = file.read_bytes()
        while (changed := change(data, drawn)) == data:
            pass
        file.write_bytes(changed)
        return [file]

    return hurt


def _swap(place: Path, file: Path, drawn: random.Random) -> list[Path]:
    """Swap the contents of a file with those of another; mostly one of the same kind."""
    others = [other for other in places.files(place) if other.read_bytes() != file.read_bytes()]
    alike = [other for other in others if other.parent.parent == file.parent.parent]
    other = drawn.choice(alike if alike and drawn.random() < 0.75 else others)
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)
    return [file, other]


def _flipped(data: bytes, drawn: random.Random, start: int, end: int) -> bytes:
    at = drawn.randrange(start, end)
    return data[:at] + bytes([data[at] ^ (1 << drawn.randrange(8))]) + data[at + 1 :]


def _manifest_end(data: bytes) -> int:
    return HEADER + int.from_bytes(data[24:32], "little")


def _header(data: bytes, drawn: random.Random) -> bytes:
    return _flipped(data, drawn, 0, HEADER)


def _manifest(data: bytes, drawn: random.Random) -> bytes:
    return _flipped(data, drawn, HEADER, _manifest_end(data))


def _blobs(data: bytes, drawn: random.Random) -> bytes:
    return _flipped(data, drawn, _manifest_end(data), len(data))


def _last(data: bytes, drawn: random.Random) -> bytes:
    return _flipped(data, drawn, len(data) - 1, len(data))


def _cut(data: bytes, drawn: random.Random) -> bytes:
    return data[: drawn.randrange(len(data))]


def _emptied(data: bytes, drawn: random.Random) -> bytes:
    return b""


def _longer(data: bytes, drawn: random.Random) -> bytes:
    return data + drawn.randbytes(drawn.randrange(1, 5000))


def _zeros(data: bytes, drawn: random.Random) -> bytes:
    start, end = sorted(drawn.sample(range(len(data) + 1), 2))
    return data[:start] + bytes(end - start) + data[end:]


DAMAGES: dict[str, Damage] = {
    "a bit of the header": _contents(_header),
    "a bit of the manifest": _contents(_manifest),
    "a bit of the rest": _contents(_blobs),
    "a bit of the last byte": _contents(_last),
    "cut off": _contents(_cut),
    "empty": _contents(_emptied),
    "bytes appended": _contents(_longer),
    "zeros in a stretch": _contents(_zeros),
    "swapped with another": _swap,
}


if __name__ == "__main__":
    compilers: dict[str, Compiler] = {"op_by_op": "op_by_op", "inductor": "inductor"}
    by = compilers[sys.argv[3] if len(sys.argv) > 3 else "op_by_op"]
    figures = run(Path(sys.argv[1]), int(sys.argv[2]), by)
    print(json.dumps({name: asdict(found) for name, found in figures.items()}))
