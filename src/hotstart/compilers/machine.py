"""Find out how many cores and how much memory this process may use.

A container's limits are those of its control group and of every group above that. Version 2 has one
tree of groups, version 1 one for each kind of resource. Inside a container, the path of the group
may exist on the host only; then the mounted root is the container's own group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

JOB_BYTES = 1 << 30
"""Memory for each process that compiles: Python with torch, and a C++ compiler."""


def default_jobs(root: Path = Path("/")) -> int:
    """Choose how many processes compile at a time: one for each usable core and GiB.

    Args:
        root: where `proc` and `sys` are.
    """
    cores = min([len(os.sched_getaffinity(0)), *_quotas(root)])
    memory = min([_available(root), *_left(root)])
    return max(1, min(cores, memory // JOB_BYTES))


def _quotas(root: Path) -> Iterator[int]:
    """Cores that control groups grant, rounded up."""
    for group in _groups(root, ""):
        with contextlib.suppress(OSError, ValueError):
            limit, period = (group / "cpu.max").read_text().split()
            yield -(-int(limit) // int(period))  # "max" is no int
    for group in _groups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota = _number(group / "cpu.cfs_quota_us")
            if quota > 0:  # -1: none
                yield -(-quota // _number(group / "cpu.cfs_period_us"))


def _left(root: Path) -> Iterator[int]:
    """Bytes that control groups leave; memory that only caches files counts as left."""
    for kind, limit, used in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for group in _groups(root, kind):
            with contextlib.suppress(OSError, ValueError):
                most = _number(group / limit)  # "max" is no int
                yield max(0, most - _number(group / used) + _cached(group / "memory.stat"))


def _cached(file: Path) -> int:
    found: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        found = dict(line.split(" ", 1) for line in file.read_text().splitlines())
    # In version 1 only the second one counts groups below.
    return int(found.get("total_inactive_file", found.get("inactive_file", "0")))


def _groups(root: Path, kind: str) -> Iterator[Path]:
    """List the folder of this process's group for a kind of resource, and all above it.

    Args:
        root: where `proc` and `sys` are.
        kind: of version 1; empty: the tree of version 2.
    """
    mounted = root / "sys/fs/cgroup" / kind
    if not kind and not (mounted / "cgroup.controllers").exists():
        mounted = mounted / "unified"  # both versions are there
    path = next((p for kinds, p in _listed(root) if kind in kinds), "/").strip("/")
    group = mounted / path
    if not group.is_dir():
        group = mounted  # the path is the host's
    while group.is_relative_to(mounted):
        yield group
        group = group.parent


def _listed(root: Path) -> Iterator[tuple[list[str], str]]:
    """The kinds of resources and the path of each group that this process is in."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            yield kinds.split(","), path


def _available(root: Path) -> int:
    """Bytes that the machine can give without swapping."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(file: Path) -> int:
    return int(file.read_text())
