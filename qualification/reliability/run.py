"""Run every fault as often as the documentation says: `python -m qualification.reliability.run`.

Names of faults after it run only those; the figures of the others stay what they were.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qualification.reliability import proofs
from qualification.reliability.damage import DAMAGES
from qualification.reliability.proofs import FIGURES

PAGE = FIGURES.with_suffix(".md")

FAULTS: dict[str, tuple[object, ...]] = {
    "kills": (200,),
    "tidying": (30,),
    "starts": (8, "inductor"),
    "proofs": (420, 7200),
    "damage": (162,),
    "damage_inductor": (27, "inductor"),
    "full": (20,),
    "full_mounted": (20, "mounted"),
    "machines": (30,),
    "machines_without_locks": (15, "no-locks"),
    "moved": (12,),
    "versions": (60,),
    "few": (10,),
    "many": (10_000,),
}
"""What each fault's process is called with, after a folder: how often, or for how long."""

_MODULES = {
    "damage_inductor": "damage",
    "full_mounted": "full",
    "machines_without_locks": "machines",
    "few": "many",
}

_TEXT = Path(__file__).with_name("page.md")
"""The page, with figures by name."""

_APART = "Their process numbers are apart, so that the same ones occur on both."


def main(faults: list[str]) -> None:
    """Run some faults, or all, and write the page."""
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for fault in faults or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            figures[fault] = _figures(fault, f"{folder}/{fault}")
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    PAGE.write_text(page(figures))


def _figures(fault: str, folder: str) -> dict[str, Any]:
    print(f"{fault} ...", file=sys.stderr, flush=True)
    module = f"qualification.reliability.{_MODULES.get(fault, fault)}"
    command = [sys.executable, "-m", module, folder, *map(str, FAULTS[fault])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def page(figures: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    by_inductor = figures["damage_inductor"].values()
    return _TEXT.read_text().format(
        **{**figures, "proofs": proofs.summary(figures["proofs"])},
        damages=_damages(figures["damage"]),
        inductor={name: sum(one[name] for one in by_inductor) for name in _COLUMNS},
        apart=_APART if figures["machines"]["apart"] else "",
        each=figures["moved"]["starts"] // figures["moved"]["places"],
        tidying_s=FAULTS["tidying"][0],
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )


_COLUMNS = {
    "rounds": "rounds",
    "noticed": "noticed by starts",
    "verified": "by `verify`",
    "ignored": "of no effect",
    "wrong": "wrong",
    "failed": "failed",
    "lasting": "lasting",
}


def _damages(figures: Mapping[str, Mapping[str, int]]) -> str:
    head = ["damage", *_COLUMNS.values()]
    total = [sum(one[name] for one in figures.values()) for name in _COLUMNS]
    rows = [[way, *(figures[way][name] for name in _COLUMNS)] for way in DAMAGES]
    lines = [head, ["---", *["---:"] * len(_COLUMNS)], *rows, ["all", *total]]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
