"""Call functions in forks, since what they run may die or not come back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from qualification.fuzz.measure import Finding, Say

T = TypeVar("T")


def in_child(function: Callable[[Say], T], kind: type[T], limit_s: float) -> T | Finding:
    """Call a function in a fork of this process.

    Args:
        function: is called with what notes the stage it is at, and returns a record.
        kind: of that record.
        limit_s: seconds until the fork is ended.

    Returns:
        The record; or a finding, where the fork died, did not end in time, or raised.
    """
    here, there = os.pipe()
    child = os.fork()
    if not child:
        _answer(function, there)
    os.close(there)
    try:
        lines = _read(here, limit_s)
    finally:
        os.close(here)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if lines is None:
        return Finding("slow", f"not done within {limit_s:.0f} s")
    if lines[-1].startswith(b"{"):
        return msgspec.json.decode(lines[-1], type=kind)
    if lines[-1].startswith(b"raised"):
        return Finding("raw", lines[-1].decode())
    stage = lines[-1].decode() or "start"
    outcome = "skipped" if stage in ("start", "eager") else "crash"
    return Finding(outcome, f"died with status {status} at {stage}")  # type: ignore[arg-type]


def _answer(function: Callable[[Say], object], pipe: int) -> None:
    """Be the fork: write stages as lines, and the record as the last one."""
    try:
        os.setpgid(0, 0)
        with Path(os.devnull).open("w") as nothing:
            for output in (1, 2):
                os.dup2(nothing.fileno(), output)

        def say(text: str) -> None:
            os.write(pipe, f"\n{text}".encode())

        try:
            record = function(say)
        except Exception as error:  # noqa: BLE001  the other process says it
            say(f"raised {type(error).__name__}: {error}".replace("\n", " "))
        else:
            os.write(pipe, b"\n" + msgspec.json.encode(record))
    finally:
        os._exit(0)


def _read(pipe: int, limit_s: float) -> list[bytes] | None:
    """Read lines until the other end closes; None if that takes too long."""
    read, until = b"", time.monotonic() + limit_s
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return None
        if not (some := os.read(pipe, 1 << 16)):
            return read.split(b"\n")
        read += some
