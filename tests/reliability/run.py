"""Run every fault as often as the documentation says: `python -m tests.reliability.run`."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

KILL_ROUNDS = 200
TIDYING_S = 30
STARTS = 8

_TEXT = """\
# Reliability

What a [cache](cache.md) survives, with real processes on one file system. `make reliability` makes
this page anew. The same faults run in the tests, a few rounds of each.

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

Python {python}, {system}.
"""


def main() -> None:
    """Run all of it, and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "kills": _figures("kills", f"{folder}/kills", KILL_ROUNDS),
            "tidying": _figures("tidying", f"{folder}/tidying", TIDYING_S),
            "starts": _figures("starts", f"{folder}/starts", STARTS, "inductor"),
        }
    PAGE.write_text(
        _TEXT.format(
            **figures,
            tidying_s=TIDYING_S,
            python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}",
        )
    )
    print(json.dumps(figures, indent=2))


def _figures(fault: str, *arguments: object) -> dict[str, Any]:
    print(f"{fault} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"tests.reliability.{fault}", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    main()
