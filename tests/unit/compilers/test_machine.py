"""How many processes compile at a time: by the cores and the memory that a container has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hotstart.compilers.machine import JOB_BYTES, default_jobs

PLENTY = 64 * JOB_BYTES
UNLIMITED = "9223372036854771712"  # what version 1 says where there is no limit


class Machine:
    """Files as the kernel has them, in a folder."""

    def __init__(self, root: Path, available: int = PLENTY) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {available // 1024} kB\n")

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, folder: str, **files: str) -> None:
        for name, text in files.items():
            self.write(f"sys/fs/cgroup/{folder}/{name.replace('__', '.')}", f"{text}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One of 16 cores, with plenty of memory, and without control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    return Machine(tmp_path)


def version_2(machine: Machine, path: str) -> None:
    machine.write("proc/self/cgroup", f"0::{path}\n")
    machine.group("", cgroup__controllers="cpu memory")


def version_1(machine: Machine, path: str) -> None:
    machine.write("proc/self/cgroup", f"9:name=systemd:/\n4:memory:{path}\n1:cpu,cpuacct:{path}\n")


def test_every_core_gets_a_job(machine: Machine) -> None:
    assert default_jobs(machine.root) == 16


def test_every_job_gets_a_gigabyte(tmp_path: Path, machine: Machine) -> None:
    few = Machine(machine.root, available=3 * JOB_BYTES + JOB_BYTES // 2)
    assert default_jobs(few.root) == 3


def test_there_is_one_job_where_there_is_no_memory(machine: Machine) -> None:
    assert default_jobs(Machine(machine.root, available=1024).root) == 1


def test_a_quota_of_version_2_is_rounded_up(machine: Machine) -> None:
    version_2(machine, "/pod/container")
    machine.group("pod/container", cpu__max="250000 100000")
    assert default_jobs(machine.root) == 3


def test_a_group_above_limits_what_is_in_it(machine: Machine) -> None:
    version_2(machine, "/pod/container")
    machine.group("pod", cpu__max="200000 100000")
    machine.group("pod/container", cpu__max="max 100000")
    assert default_jobs(machine.root) == 2


def test_memory_of_version_2_counts_without_cached_files(machine: Machine) -> None:
    version_2(machine, "/")
    machine.group(
        "",
        memory__max=str(8 * JOB_BYTES),
        memory__current=str(6 * JOB_BYTES),
        memory__stat=f"anon {3 * JOB_BYTES}\ninactive_file {3 * JOB_BYTES}",
    )
    assert default_jobs(machine.root) == 5


def test_no_limit_of_version_2_limits_nothing(machine: Machine) -> None:
    version_2(machine, "/")
    machine.group("", memory__max="max", memory__current="1", cpu__max="max 100000")
    assert default_jobs(machine.root) == 16


def test_a_quota_of_version_1(machine: Machine) -> None:
    version_1(machine, "/docker/1a")
    machine.group("cpu/docker/1a", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    assert default_jobs(machine.root) == 2


def test_no_quota_of_version_1(machine: Machine) -> None:
    version_1(machine, "/")
    machine.group("cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert default_jobs(machine.root) == 16


def test_memory_of_version_1_counts_that_of_groups_below(machine: Machine) -> None:
    version_1(machine, "/docker/1a")
    machine.group("memory", memory__limit_in_bytes=UNLIMITED, memory__usage_in_bytes="1")
    machine.group(
        "memory/docker/1a",
        memory__limit_in_bytes=str(4 * JOB_BYTES),
        memory__usage_in_bytes=str(3 * JOB_BYTES),
        memory__stat=f"inactive_file 0\ntotal_inactive_file {JOB_BYTES}",
    )
    assert default_jobs(machine.root) == 2


def test_a_path_that_only_the_host_has_means_the_root(machine: Machine) -> None:
    version_1(machine, "/kubepods/of/the/host")
    machine.group("cpu", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    assert default_jobs(machine.root) == 3


def test_this_machine_has_some() -> None:
    assert 1 <= default_jobs() <= (os.cpu_count() or 1)
