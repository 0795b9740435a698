"""Locks that one process at a time can hold, and that the system frees when that process ends."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)


def acquire(path: Path, timeout_s: float) -> BaseFileLock | None:
    """Wait for a lock; None if that took too long.

    Args:
        path: the lock's file; made if it is not there.
        timeout_s: how long to wait; 0: not at all.

    Raises:
        OSError: the file cannot be opened, or the file system has no locks.
    """
    from filelock import FileLock, Timeout  # a load takes no lock

    # Where the system has no locks, a file that says so would outlive a process that is killed.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if timeout_s <= 0:
            return None
        log.info("waiting for a process that holds %s", path)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            return None
    return lock


def remove(path: Path) -> None:
    """Remove the file of a lock that nobody holds.

    Raises:
        OSError: it cannot be removed.
    """
    lock = acquire(path, 0)
    if lock is not None:
        try:
            path.unlink()
        finally:
            lock.release()
