"""Run every fault as often as the documentation says: `python -m tests.reliability.run`.

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

from tests.reliability.damage import DAMAGES

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
FIGURES = PAGE.with_suffix(".json")

FAULTS: dict[str, tuple[object, ...]] = {
    "kills": (200,),
    "tidying": (30,),
    "starts": (8, "inductor"),
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

_TEXT = """\
# Reliability

What a [cache](cache.md) survives, with real processes on one file system. `make reliability` makes
this page anew; its figures are in [reliability.json](reliability.json). The same faults run in the
tests, a few rounds of each.

## Writers that are killed

Eight processes write files into one folder, and are killed with SIGKILL at a random moment; that
{kills[rounds]} times, so {kills[killed]} kills.

| | |
| --- | ---: |
| files that a writer was told are written | {kills[committed]} |
| lost | {kills[lost]} |
| there, but not whole | {kills[damaged]} |
| unfinished files that were left behind | {kills[leftovers]} |
| of these left after tidying up | {kills[left_after_tidying]} |

## Files that are damaged

A cache is filled with three programs, two of which have the same key and the same pieces but
different results. Then one file after the other is damaged, each in a copy of its own: every
program, entry and piece in every way. After that every program is started twice, in processes of
their own. Where a piece is damaged, the programs are removed first, lest it go unread.

What no start reads is found by `hotstart cache verify` only.

{damages}

Wrong are starts whose results are not those of the model, bit by bit; failed those that raise or
die; lasting is damage after which the second start did not find everything again.

The same with Inductor, {inductor[rounds]} rounds of all kinds: {inductor[noticed]} noticed by
starts, {inductor[verified]} by `verify`, {inductor[ignored]} of no effect; {inductor[wrong]} wrong,
{inductor[failed]} failed, {inductor[lasting]} lasting.

## No room

Starts with a random amount of room, most often too little for all that they would keep. Once on a
file system that is full but for that, and once with a quota that is made by failing system calls.
Then there is room again, and the same programs are started twice. Last, there is no room but what
files take that nobody has used for a while.

| | full | quota |
| --- | ---: | ---: |
| rounds | {full_mounted[rounds]} | {full[rounds]} |
| of these with something that could not be kept | {full_mounted[short]} | {full[short]} |
| starts | {full_mounted[starts]} | {full[starts]} |
| wrong results | {full_mounted[wrong]} | {full[wrong]} |
| failed | {full_mounted[failed]} | {full[failed]} |
| files that were not whole, or unfinished | {full_mounted[half]} | {full[half]} |
| programs not kept when there was room again | {full_mounted[lasting]} | {full[lasting]} |
| rounds in which old files did not make room | {full_mounted[stale]} | {full[stale]} |

## Two machines, one folder

Two groups of processes that differ in host name, home, working directory, umask, time zone and
instruction set, so that one may not run what the other compiles. {apart} They start the same
programs at about the same time, and others of before, three at once each. Then each starts again
all that it ever had. Once with locks, and once on a file system that has none (`ENOLCK`).

| | locks | no locks |
| --- | ---: | ---: |
| seconds | {machines[seconds]:.0f} | {machines_without_locks[seconds]:.0f} |
| starts | {machines[starts]} | {machines_without_locks[starts]} |
| of these made and kept a program | {machines[compiled]} | {machines_without_locks[compiled]} |
| wrong results | {machines[wrong]} | {machines_without_locks[wrong]} |
| failed | {machines[failed]} | {machines_without_locks[failed]} |
| programs that a machine had | {machines[keys]} | {machines_without_locks[keys]} |
| of these lost | {machines[lost]} | {machines_without_locks[lost]} |
| files damaged | {machines[damaged]} | {machines_without_locks[damaged]} |
| files unfinished | {machines[unfinished]} | {machines_without_locks[unfinished]} |

## A folder that moves

It is copied, moved and linked to, {moved[places]} times in a row, and every time {each} programs
are started that must not be compiled.

| | |
| --- | ---: |
| starts | {moved[starts]} |
| that did not find their program | {moved[missed]} |
| wrong results | {moved[wrong]} |
| that did not find all pieces in the end | {moved[pieces_missed]} |

## Upgrades and downgrades

Three versions of hotstart use one folder in no order: this one, one with another version number
whose entries and programs say more, and one with another format of files besides.

| | |
| --- | ---: |
| starts | {versions[starts]} |
| the first of a version with a program, which compile | {versions[first]} |
| later ones that compiled again | {versions[again]} |
| wrong results | {versions[wrong]} |
| failed | {versions[failed]} |
| files taken for damaged, also by `hotstart cache verify` | {versions[damaged]} |
| files gone | {versions[gone]} |
| files beyond the limit after tidying up | {versions[over]} |
| files of another format that were removed by that | {versions[touched]} |

Limits are for each format: a folder that two of them use may hold twice as much.

## {many[programs]:,} programs

Milliseconds, the median of seven.

| programs | {few[programs]} | {many[programs]:,} |
| --- | ---: | ---: |
| a start that finds its program | {few[start_ms]:.0f} | {many[start_ms]:.0f} |
| one that does not, until it knows what differs | {few[miss_ms]:.0f} | {many[miss_ms]:.0f} |
| tidying up where nothing is too much, once a compile | {few[tidy_ms]:.0f} | {many[tidy_ms]:.0f} |
| `hotstart cache ls` | {few[ls_ms]:.0f} | {many[ls_ms]:.0f} |
| `hotstart cache stats` | {few[stats_ms]:.0f} | {many[stats_ms]:.0f} |

A start is a process that has imported torch, and finds, loads and runs the program.

## Tidying up under readers and writers

For {tidying_s} seconds, two processes remove what is too much while two write, two hold files open,
and two say that they use files and open them a while later.

| | |
| --- | ---: |
| files removed | {tidying[removed]} |
| held open | {tidying[held]} |
| of these not readable to the end | {tidying[damaged]} |
| said to be in use | {tidying[claimed]} |
| of these gone | {tidying[lost]} |

## Processes that start at once

{starts[processes]} processes compile the same model with Inductor into one empty cache at the same
moment; then one more starts.

| | |
| --- | ---: |
| compiled; the others waited and loaded | {starts[compiled]} |
| wrong results | {starts[wrong]} |
| seconds until the first had its program, and had kept it | {starts[build_s]:.1f} |
| seconds until the last had it | {starts[longest_s]:.1f} |
| milliseconds until the one that came later had it | {starts[later_ms]:.0f} |

Python {python}, {system}, cores that it ran on: {cores}.
"""

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
    module = f"tests.reliability.{_MODULES.get(fault, fault)}"
    command = [sys.executable, "-m", module, folder, *map(str, FAULTS[fault])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def page(figures: Mapping[str, Any]) -> str:
    by_inductor = figures["damage_inductor"].values()
    return _TEXT.format(
        **figures,
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
