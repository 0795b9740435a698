"""Pieces and programs that compile in the workers of a real Ray cluster of this machine."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from hotstart import CompileError
from hotstart.cli import main
from hotstart.compilers.workers.ray_cluster import Cluster
from tests.integration import ray_tasks
from tests.integration.test_workers import build, saved, wait_for

if importlib.util.find_spec("ray") is None:  # whose import takes seconds
    pytest.skip("the extra hotstart[ray] is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # no token in the home folder
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",  # `print` stays what it is, for the tests that come after
}


@dataclass(frozen=True)
class Local:
    """A cluster of two workers on this machine, which this process is connected to.

    Attributes:
        address: for other processes.
        folder: of its files and sockets.
    """

    address: str
    folder: Path


def processes_with(text: str) -> list[int]:
    """The processes that have a text in their command line, or in their environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        for kind in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has ended
                if text.encode() in (process / kind).read_bytes():
                    found.add(int(process.name))
    return sorted(found - {os.getpid()})


ALONE = """
import sys
from tests.integration.test_workers import build
file, *targets = sys.argv[1:]
build(jobs=1, target=targets or "native").save(file, check=False)
"""


@pytest.fixture(scope="module")
def cluster(python: Callable[..., str]) -> Iterator[Local]:
    import ray

    # Names of sockets may have 107 characters, and those of pytest's folders have most of them.
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        inductor = Path(folder, "inductor")
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        with pytest.MonkeyPatch.context() as workers:
            workers.setenv("CLUSTER_OF_TESTS", folder)
            workers.setenv("TORCHINDUCTOR_CACHE_DIR", str(inductor))
            workers.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
            made = ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=80 << 20,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=folder,
            )
        try:
            yield Local(made.address_info["gcs_address"], Path(folder))
        finally:
            ray.shutdown()
            wait_for(lambda: not processes_with(f"CLUSTER_OF_TESTS={folder}"), 30)


def handing(patch: pytest.MonkeyPatch, function: Callable[..., bytes]) -> None:
    """Have workers run another function in place of `compile_errand`."""
    patch.setattr("hotstart.compilers.workers.ray_workers.compile_errand", function)


@pytest.mark.slow
def test_a_program_has_the_same_bytes_though_a_worker_was_killed(
    cluster: Local,
    python: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    # Kernels that check indices say in which file they were, so both builds use one folder.
    alone, inductor = tmp_path / "alone.hot", cluster.folder / "inductor"
    python("-c", ALONE, alone, TORCHINDUCTOR_CACHE_DIR=str(inductor))
    shutil.rmtree(inductor)
    killed = functools.partial(ray_tasks.compile_and_be_killed_once, str(tmp_path))
    handing(monkeypatch, killed)
    with caplog.at_level(logging.WARNING, "hotstart"):
        spread = build(jobs="ray")
    (said,) = [r.getMessage() for r in caplog.records if "lost" in r.getMessage()]
    assert "1 Ray worker was lost while compiling piece_" in said
    assert saved(spread, tmp_path / "spread.hot") == alone.read_bytes()
    workers = spread.report.workers
    assert workers.processes >= 1
    assert workers.peak_memory_bytes > 100 << 20  # torch alone takes more
    compiled = [unit for unit in spread.report.units if unit.action == "compiled"]
    assert sum(unit.seconds for unit in compiled) == pytest.approx(workers.seconds)


@pytest.mark.slow
def test_what_another_machine_refuses_compiles_in_the_process_that_builds(
    cluster: Local,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    handing(monkeypatch, ray_tasks.compile_on_another_machine)
    with caplog.at_level(logging.WARNING, "hotstart"):
        program = build(jobs="ray")
    said = [r.getMessage() for r in caplog.records]
    assert said
    assert all("torch: expected 9.9, found" in line for line in said)
    assert program.report.workers.processes == 0
    assert saved(program, tmp_path / "a.hot") == saved(build(jobs=1), tmp_path / "b.hot")


EXPLAIN = """
import sys
import torch
from hotstart.cli import main
from hotstart.compilers.workers.ray_cluster import Cluster
torch.set_num_threads(int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""

FACTORIES = """
import os
from pathlib import Path
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) * 2.0

def plain():
    return Scaled().eval(), (torch.zeros(2, 4),), None

def patching():
    nn.Module.put_in = lambda self: self
    return plain()

def killed_once():
    marker = Path("killed")  # in the working folder
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    return Scaled().eval(), (torch.zeros(3, 4),), None

def killed():
    os.kill(os.getpid(), 9)

def broken():
    raise ValueError("no such model")

def slow():
    import time
    Path("began").touch()
    time.sleep(600)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with factories."""
    (tmp_path / "ray_shop.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HOTSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_warm_tells_of_each_factory_and_of_one_whose_worker_was_killed(
    cluster: Local, shop: Path, capsys: pytest.CaptureFixture[str], python: Callable[..., str]
) -> None:
    names = ["plain", "killed_once", "broken", "plain"]
    factories = [f"ray_shop:{name}" for name in names]
    command = ["warm", *factories, "--on", "ray", "--compiler", "op_by_op", "--no-check"]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # Ray's workers have one
    try:
        assert main([*command, "--json"]) == 1
    finally:
        torch.set_num_threads(threads)
    told, err = capsys.readouterr()
    rows = {row["factory"]: row for row in json.loads(told)}
    assert [row["factory"] for row in json.loads(told)] == sorted(factories, key=factories.index)
    assert {name: row["action"] for name, row in rows.items()} == {
        "ray_shop:plain": "compiled",
        "ray_shop:killed_once": "compiled",
        "ray_shop:broken": "failed",
    }
    assert len(re.findall("^error: ", err, re.MULTILINE)) == 1
    assert "error: ray_shop:broken: ValueError: no such model" in err
    assert len(hotstart.Store(shop / "cache").probe(rows["ray_shop:plain"]["key"])) == 1
    found = python(
        "-c",
        EXPLAIN,
        threads + 1,
        *("explain", "ray_shop:plain", "--compiler", "op_by_op", "--json"),
    )
    assert json.loads(found)["key"] == rows["ray_shop:plain"]["key"]


# --- what takes longer ----------------------------------------------------------------------------


@pytest.mark.slow
def test_more_cores_than_a_machine_has_are_told_of(
    cluster: Local, caplog: pytest.LogCaptureFixture
) -> None:
    Cluster({}, cores=2)
    assert not caplog.messages
    Cluster({}, cores=3)
    assert "takes 3 cores, and no machine of the Ray cluster has more than 2" in caplog.text


@pytest.mark.slow
def test_a_piece_whose_workers_are_killed_each_time_is_named(
    cluster: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    handing(monkeypatch, ray_tasks.compile_and_be_killed)
    with pytest.raises(CompileError, match=r"piece_0 .*every Ray worker that compiled it was lost"):
        build(jobs="ray")


@pytest.mark.slow
def test_errors_of_workers_read_like_those_of_this_process(cluster: Local) -> None:
    broken = {"cpp.cxx": ("/no/such/compiler",)}
    texts = []
    for jobs in (1, "ray"):
        with pytest.raises(CompileError) as raised:
            build(jobs=jobs, inductor=broken)
        texts.append(str(raised.value))
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_levels_compile_as_in_one_process(
    cluster: Local, python: Callable[..., str], tmp_path: Path
) -> None:
    levels, alone = ("x86-64-v3", "x86-64-v2"), tmp_path / "alone.hot"
    spread = build(jobs="ray", target=levels)
    assert spread.report.workers.processes >= 1
    folder = str(cluster.folder / "inductor")
    python("-c", ALONE, alone, *levels, TORCHINDUCTOR_CACHE_DIR=folder)
    assert saved(spread, tmp_path / "spread.hot") == alone.read_bytes()


def started(
    cluster: Local, folder: Path, *command: object, **environment: str
) -> subprocess.Popen[str]:
    """Start a process that finds the cluster by itself."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "RAY_ADDRESS": cluster.address,
            **environment,
        },
    )


def warmed(cluster: Local, shop: Path, *command: str) -> tuple[int, Any, str]:
    """Exit status, rows and stderr of `hotstart warm`."""
    process = started(cluster, shop, "-m", "hotstart", "warm", *command, "--json")
    out, err = process.communicate(timeout=300)
    return process.returncode, json.loads(out), err


@pytest.mark.slow
def test_a_factory_that_kills_every_worker_is_one_line(cluster: Local, shop: Path) -> None:
    status, (row,), err = warmed(cluster, shop, "ray_shop:killed", "--on", "ray")
    assert status == 1
    assert row["action"] == "failed"
    assert row["error"].startswith("its worker was lost 4 times")
    assert len(re.findall("^error: ", err, re.MULTILINE)) == 1


@pytest.mark.slow
def test_each_factory_has_a_process_of_its_own(cluster: Local, shop: Path) -> None:
    command = ["--on", "ray", "--compiler", "op_by_op", "--no-check"]
    factories = ["ray_shop:patching", "ray_shop:plain"]
    _, (_, after), _ = warmed(cluster, shop, *factories, *command)
    _, (plain,), _ = warmed(cluster, shop, "ray_shop:plain", *command[2:], "--cache", "another")
    assert after["key"] == plain["key"]


@pytest.mark.slow
def test_a_folder_that_only_the_worker_has_fails(
    cluster: Local, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hotstart.cache.store import Store

    monkeypatch.setattr(Store, "entry_names", lambda self, key: set())  # as if it were elsewhere
    assert main(["warm", "ray_shop:plain", "--on", "ray", "--compiler", "op_by_op"]) == 1
    assert "Give a --remote" in capsys.readouterr().err


@pytest.mark.slow
def test_a_remote_is_what_machines_share(cluster: Local, shop: Path) -> None:
    pytest.importorskip("obstore", reason="the extra hotstart[remote] is not installed")
    remote = (shop / "remote").as_uri()
    given = ["ray_shop:plain", "--compiler", "op_by_op", "--remote", remote]
    status, (row,), _ = warmed(cluster, shop, *given, "--on", "ray", "--cache", "there")
    assert (status, row["action"]) == (0, "compiled")
    status, (row,), _ = warmed(cluster, shop, *given, "--cache", "here")
    assert (status, row["action"]) == (0, "loaded")


@pytest.mark.slow
def test_a_factory_hands_its_pieces_to_the_cluster(cluster: Local, shop: Path) -> None:
    """Two factories on two cores, and their pieces: a task that waits gives its core away."""
    (shop / "stacks.py").write_text(
        textwrap.dedent("""
        import torch
        from tests.integration.test_workers import Stack

        def one():
            return Stack().eval(), (torch.zeros(3, dtype=torch.long),), None

        def two():
            return Stack().eval(), (torch.zeros(5, dtype=torch.long),), None
    """)
    )
    command = ["stacks:one", "stacks:two", "--on", "ray", "--jobs", "ray"]
    status, rows, err = warmed(cluster, shop, *command)
    assert status == 0, err
    assert [row["action"] for row in rows] == ["compiled", "compiled"]
    status, rows, _ = warmed(cluster, shop, *command[:2])
    assert [row["action"] for row in rows] == ["loaded", "loaded"]


@pytest.mark.slow
def test_ctrl_c_ends_what_runs_on_the_cluster(cluster: Local, shop: Path) -> None:
    process = started(cluster, shop, "-m", "hotstart", "warm", "ray_shop:slow", "--on", "ray")
    wait_for(lambda: (shop / "began").exists())
    running = processes_with("ray::ray_shop:slow")
    assert running
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_for(lambda: not processes_with("ray::ray_shop:slow"), 30)


@pytest.mark.slow
def test_a_build_finds_the_cluster_and_an_interrupt_cancels_its_jobs(
    cluster: Local, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from tests.integration import ray_tasks
        from tests.integration.test_workers import build
        from hotstart.compilers import ray_cluster, ray_workers

        def result(self, task):
            print("waits", flush=True)
            return wait(self, task)

        wait = ray_cluster.Cluster.result
        ray_cluster.Cluster.result = result
        build(jobs="ray")
    """)
    )
    process = started(cluster, tmp_path, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in told
    wait_for(lambda: not processes_with("ray::piece_"), 30)
