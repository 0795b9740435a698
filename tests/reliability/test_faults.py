"""A few rounds of every fault; `make reliability` runs as many as `docs/reliability.md` says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def found(fault: str, *arguments: object) -> dict[str, Any]:
    """What a fault's own process printed."""
    command = [sys.executable, "-m", f"tests.reliability.{fault}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def test_killed_writers_lose_and_damage_nothing(tmp_path: Path) -> None:
    figures = found("kills", tmp_path / "store", 15)
    assert figures["committed"] > 15
    assert figures["leftovers"] > 0
    assert (figures["lost"], figures["damaged"], figures["left_after_tidying"]) == (0, 0, 0)


def test_of_processes_that_start_at_once_one_compiles(tmp_path: Path) -> None:
    figures = found("starts", tmp_path / "store", 3)
    assert (figures["compiled"], figures["later_compiled"], figures["wrong"]) == (1, 0, 0)


def test_what_is_in_use_is_not_tidied_away(tmp_path: Path) -> None:
    figures = found("tidying", tmp_path / "store", 3)
    assert figures["held"] > 20
    assert figures["removed"] > 20
    assert figures["damaged"] == 0
    # Between a last look at a file and its removal lie some microseconds.
    assert figures["lost"] <= figures["claimed"] / 50
