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

What a [cache](cache.md) survives, with real processes on one file system. `make reliability` makes this
page anew. The same faults run in the tests, a few rounds of each.

## Writers that are killed

Eight processes write files into one folder, {kills[rounds]} times, and are killed with SIGKILL at a random
moment: {kills[killed]} kills. Of {kills[committed]} files that a writer was told are written, {kills[lost]}
were lost; of all files that were there, {kills[damaged]} were not whole. The killed left
{kills[leftovers]} unfinished files, of which tidying up left {kills[left_after_tidying]}.

## Tidying up under readers and writers

Two processes remove what is too much while two write, two hold files open and two say that they use files
and open them a while later, for {tidying_s} seconds. {tidying[removed]} files were removed. Of
{tidying[held]} that were held open, {tidying[damaged]} could not be read to their end; of
{tidying[claimed]} that were in use, {tidying[lost]} were gone.

## Processes that start at once

{starts[processes]} processes compile the same model with Inductor into one empty cache at the same moment.
{starts[compiled]} compiled; the others waited and loaded. The build took {starts[build_s]:.1f} s with keeping
it, and the last process had its program after {starts[longest_s]:.1f} s. A process that started later had it
after {starts[later_ms]:.0f} ms. Results that were wrong: {starts[wrong]}.

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
