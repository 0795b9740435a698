"""Code that runs in a process of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from qualification.forks import Forks


def python(code: str, *arguments: str, cwd: Path | None = None) -> Any:
    """What a fresh process prints, read as JSON."""
    return run("-c", code, *arguments, cwd=cwd)


def run(*command: str, cwd: Path | None = None) -> Any:
    """Run Python with a command line of its own; what it prints, read as JSON."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_fresh(code: str, *arguments: object, **environment: str) -> Any:
    """Run code in a process that has no compiler, no caches and no home; its last line is JSON."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), *map(str, arguments)],
        env={**_clean(), **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    return _last_line(done)


def run_with_torch(code: str, *arguments: object) -> Any:
    """The same in a fork of a process that has imported torch, which saves the second it takes."""
    command = ["-c", dedent(code), *arguments]
    return _last_line(_torch_process().run(command, _clean(), ("torch", "numpy")))


@functools.cache
def _torch_process() -> Forks:
    return Forks()  # which ends with this process


def _clean() -> dict[str, str]:
    return {
        "PATH": "/nonexistent",
        "HOME": "/proc/nonexistent",  # which not even root could write to
        "TORCHINDUCTOR_CACHE_DIR": "/proc/nonexistent",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)]),
    }


def _last_line(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])
