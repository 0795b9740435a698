"""Pieces that compile in worker processes: the same units, and nothing left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import CompileError, Dim, Options, Program
from hotstart.compilers.workers.pool import Workers
from hotstart.compilers.workers.worker_process import Worker

ROOT = Path(__file__).parents[2]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Stack(nn.Module):
    """Three different pieces, one of them four times."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(16, 50)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).tanh()
        for block in self.blocks:
            x = block(x)
        return self.head(x).softmax(-1)


def build(model: nn.Module | None = None, **options: Any) -> Program:
    torch.manual_seed(0)
    return hotstart.compile(
        (model or Stack()).eval(),
        (torch.zeros(3, dtype=torch.long),),
        dynamic_shapes={"ids": {0: Dim("n", min=2, max=64)}},
        options=Options(**options),
    )


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not so within {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Worker]]:
    """All workers that are started; every one has to be gone in the end."""
    found: list[Worker] = []
    start = Worker.__init__

    def started(self: Worker) -> None:
        start(self)
        found.append(self)

    monkeypatch.setattr(Worker, "__init__", started)
    yield found
    assert not any(is_running(worker.pid) for worker in found)
    assert not [t for t in threading.enumerate() if t.name.startswith("hotstart-worker")]


@contextlib.contextmanager
def all_by_workers() -> Iterator[None]:
    """Have workers compile all they can before the process that builds asks for anything."""
    expect = Workers.expect

    def expect_and_wait(self: Workers, target: Any, group: str, jobs: Sequence[Any]) -> None:
        expect(self, target, group, jobs)

        def is_idle() -> bool:
            states = {task.state for task in self._tasks.values()}
            serving = any(thread.is_alive() for thread in self._threads)
            return "runs" not in states and not (serving and "waits" in states)

        wait_for(is_idle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "expect", expect_and_wait)
        yield


@pytest.fixture
def by_workers() -> Iterator[None]:
    """As `all_by_workers`, while a test runs."""
    with all_by_workers():
        yield


def saved(program: Program, file: Path) -> bytes:
    program.save(file, check=False)
    return file.read_bytes()


@pytest.mark.thorough
def test_a_program_has_the_same_bytes_whoever_compiles_its_pieces(
    started: list[Worker], by_workers: None, tmp_path: Path
) -> None:
    alone = build(jobs=1)
    assert started == []
    assert alone.report.workers.processes == 0
    beside = build(jobs=2)
    assert len(started) == 1
    assert saved(beside, tmp_path / "beside.hot") == saved(alone, tmp_path / "alone.hot")
    workers = beside.report.workers
    assert workers.processes == 1
    assert workers.seconds > 0
    assert workers.peak_memory_bytes > 100 << 20  # torch alone takes more
    compiled = [unit for unit in beside.report.units if unit.action == "compiled"]
    assert sum(unit.seconds for unit in compiled) == pytest.approx(workers.seconds)
    assert beside.report.wall_s == pytest.approx(sum(beside.report.phases.values()))
    assert "1 worker compiled for" in str(beside.report)
    by_worker = [span for span in beside.report.spans if span.lane == "worker 1"]
    assert {span.name for span in by_worker} == {unit.piece for unit in compiled}
    assert sum(span.seconds for span in by_worker) >= workers.seconds
    kernels = {k.file_name.format(k.name) for u in beside.artifact.units for _, k in u.kernels}
    sources = beside.document().details.kernels
    assert set(sources) == kernels
    assert all("kernel" in source for source in sources.values())


class Pooled(nn.Module):
    """Two pieces; Inductor decides by batch size 1 about a view in the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.sin().sort()[0]
        return nn.functional.adaptive_avg_pool2d(self.conv(x), (2, 3)).flatten(1)


@pytest.mark.slow
def test_what_a_worker_assumed_of_sizes_splits_the_range(
    started: list[Worker], by_workers: None, tmp_path: Path
) -> None:
    def pooled(jobs: int) -> Program:
        torch.manual_seed(0)
        return hotstart.compile(
            Pooled().eval(),
            (torch.zeros(2, 3, 8, 9),),
            dynamic_shapes={"x": {0: Dim("b", max=20), 2: Dim("h", min=6, max=40)}},
            split_on=["aten::sort"],
            options=Options(jobs=jobs),
        )

    alone, beside = pooled(1), pooled(2)
    assert len(started) == 1
    assert set(beside.code) == {"b=2..20,h=6..40", "b=1,h=6..40"}
    assert saved(beside, tmp_path / "beside.hot") == saved(alone, tmp_path / "alone.hot")
    assert beside.report.splits == alone.report.splits


def test_a_killed_build_leaves_no_worker(tmp_path: Path) -> None:
    building, workers = script(tmp_path)
    building.kill()
    building.communicate(timeout=60)  # which ends when no process has the other end open
    wait_for(lambda: not any(map(is_running, workers)), 20)


SCRIPT = """
    import os, sys, torch, hotstart
    from pathlib import Path
    from tests.integration.test_workers import Stack, Worker, Workers, build

    print("imported", flush=True)
    start = Worker.__init__

    def started(self):
        start(self)
        print("worker", self.pid, flush=True)

    Worker.__init__ = started
    program = build(jobs=2)
    print("built", program.report.workers.processes, flush=True)
"""


def script(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Run a script without a main guard that builds, until its first worker has started."""
    file = folder / "script.py"
    file.write_text(textwrap.dedent(SCRIPT))
    path = os.pathsep.join([str(ROOT), *sys.path])
    building = subprocess.Popen(
        [sys.executable, file],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert building.stdout is not None
    assert building.stdout.readline() == "imported\n"
    word, number = building.stdout.readline().split()
    assert word == "worker"
    assert is_running(int(number))
    return building, [int(number)]


@pytest.mark.slow
def test_ctrl_c_leaves_no_worker(tmp_path: Path) -> None:
    building, workers = script(tmp_path)
    building.send_signal(signal.SIGINT)
    _, told = building.communicate(timeout=60)
    assert "KeyboardInterrupt" in told
    assert not any(map(is_running, workers))


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    building, workers = script(tmp_path)
    printed, told = building.communicate(timeout=300)
    assert building.returncode == 0, told
    assert printed == "built 1\n"  # and nothing twice
    assert not any(map(is_running, workers))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(
    started: list[Worker],
    by_workers: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    answer = Worker.answer

    def kill_first(self: Worker, errand: bytes, limit_s: float) -> bytes:
        if self is started[0]:
            threading.Timer(0.2, os.kill, (self.pid, signal.SIGKILL)).start()
        return answer(self, errand, limit_s)

    monkeypatch.setattr(Worker, "answer", kill_first)
    with caplog.at_level(logging.WARNING, "hotstart"):
        program = build(jobs=2)
    (said,) = [r.getMessage() for r in caplog.records if "compiled once more" in r.getMessage()]
    assert "piece_0 ended by SIGKILL" in said
    assert len(started) == 2
    monkeypatch.undo()
    assert saved(program, tmp_path / "a.hot") == saved(build(jobs=1), tmp_path / "b.hot")


@pytest.mark.slow
def test_a_piece_that_ends_its_worker_twice_is_named(
    started: list[Worker], by_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Worker.answer

    def kill(self: Worker, errand: bytes, limit_s: float) -> bytes:
        os.kill(self.pid, signal.SIGSEGV)
        return answer(self, errand, limit_s)

    monkeypatch.setattr(Worker, "answer", kill)
    with pytest.raises(CompileError, match=r"piece_0 .*its process ended by SIGSEGV, twice"):
        build(jobs=2)


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_replaced(
    started: list[Worker],
    by_workers: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = Worker.answer

    def stop_first(self: Worker, errand: bytes, limit_s: float) -> bytes:
        if self is not started[0]:
            return answer(self, errand, limit_s)
        os.kill(self.pid, signal.SIGSTOP)
        return answer(self, errand, 0.5)

    monkeypatch.setattr(Worker, "answer", stop_first)
    with caplog.at_level(logging.WARNING, "hotstart"):
        build(jobs=2)
    assert "piece_0 did not end within 0.5 s" in caplog.text
    assert len(started) == 2


@pytest.mark.slow
def test_errors_of_workers_read_like_those_of_this_process(
    started: list[Worker], by_workers: None
) -> None:
    broken = {"cpp.cxx": ("/no/such/compiler",)}
    texts = []
    for jobs in (1, 2):
        with pytest.raises(CompileError) as raised:
            build(jobs=jobs, inductor=broken)
        texts.append(str(raised.value))
    assert len(started) == 1
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_a_piece_with_an_operator_of_the_users_own_compiles_here(
    started: list[Worker], by_workers: None
) -> None:
    from tests.integration.own_op import Halving

    class Own(Stack):
        def __init__(self) -> None:
            super().__init__()
            self.halving = Halving()

        def forward(self, ids: Tensor) -> Tensor:
            return self.halving(super().forward(ids))

    model = Own().eval()
    ids = torch.tensor([1, 2, 3])
    torch.testing.assert_close(build(model, jobs=2)(ids), model(ids))
    assert len(started) == 1


@pytest.mark.slow
def test_pieces_that_are_kept_need_no_worker(started: list[Worker], tmp_path: Path) -> None:
    def cached(high: int) -> Program:
        torch.manual_seed(0)
        return hotstart.compile(
            Stack().eval(),
            (torch.zeros(3, dtype=torch.long),),
            dynamic_shapes={"ids": {0: Dim("n", min=2, max=64)}},
            options=Options(jobs=2, splits=high),
            cache=hotstart.Store(tmp_path),
        )

    cached(1)
    before = len(started)
    again = cached(2)  # another program of the same pieces
    assert {unit.action for unit in again.report.units} == {"loaded", "reused"}
    assert len(started) == before


def test_one_piece_needs_no_worker(started: list[Worker]) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
    hotstart.compile(model, (torch.randn(2, 8),), options=Options(jobs=2))
    assert started == []
