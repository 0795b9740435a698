"""Functions that tests have the workers of a Ray cluster run in place of the library's own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from hotstart.compilers.workers.ray_workers import compile_errand, prepare
from hotstart.targets import TargetName


def compile_and_be_killed_once(
    folder: str, expected: Mapping[str, str], targets: Sequence[TargetName], errand: bytes
) -> bytes:
    """Compile; the first worker that does is killed in the middle."""
    prepare()
    if _is_first(folder):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return compile_errand(expected, targets, errand)


def compile_and_be_killed(
    expected: Mapping[str, str], targets: Sequence[TargetName], errand: bytes
) -> bytes:
    """Be killed each time."""
    os.kill(os.getpid(), signal.SIGKILL)
    return compile_errand(expected, targets, errand)


def compile_on_another_machine(
    expected: Mapping[str, str], targets: Sequence[TargetName], errand: bytes
) -> bytes:
    """Compile where the process that builds is of another version."""
    return compile_errand({**expected, "torch": "9.9"}, targets, errand)


def _is_first(folder: str) -> bool:
    try:
        Path(folder, "killed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
