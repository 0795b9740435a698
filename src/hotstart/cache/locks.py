"""Locks that one process at a time can hold, and that the system frees when that process ends."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25


class Lock:
    """A lock that is held; see `acquire`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it."""
        # A child that was forked meanwhile has the descriptor too, so closing it is not enough.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def acquire(path: Path, timeout_s: float) -> Lock | None:
    """Wait for a lock; None if that took too long.

    Args:
        path: the lock's file, in a folder that exists; made if it is not there.
        timeout_s: how long to wait; 0: not at all.

    Raises:
        OSError: the file cannot be opened, or the file system has no locks.
    """
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while True:
        lock = _try(path)
        if lock is not None or time.monotonic() >= deadline:
            return lock
        if pause == _FIRST_PAUSE_S:
            log.info("waiting for a process that holds %s", path)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def remove(path: Path) -> None:
    """Remove the file of a lock that nobody holds.

    Raises:
        OSError: it cannot be removed.
    """
    lock = _try(path)
    if lock is not None:
        try:
            path.unlink()
        finally:
            lock.release()


def _try(path: Path) -> Lock | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # If the file was removed or replaced in between, this is a lock on nothing.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return Lock(descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
