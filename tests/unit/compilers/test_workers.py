"""Who compiles what: workers, and the process that builds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hotstart import Options
from hotstart.compilers import Job, OpByOpCompiler
from hotstart.compilers.workers.errand import run
from hotstart.compilers.workers.outcome import Outcome
from hotstart.compilers.workers.pool import Workers, workers_of

OPTIONS = Options(compiler="op_by_op")


class InThread:
    """A worker without a process, which answers when it may."""

    pid = 0
    may = threading.Event()
    one_at_a_time = threading.Lock()  # in one process, two compiles at a time would mix

    def wait_until_ready(self) -> None:
        """Be ready."""

    def answer(self, errand: bytes, limit_s: float) -> bytes:
        assert self.may.wait(60)
        with self.one_at_a_time:
            return run(errand)

    def peak_bytes(self) -> int:
        return 1 << 20

    def end(self) -> None:
        self.may.set()

    close = end


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One worker at most, which answers once `InThread.may` is set."""
    # A thread of this process is in its state already, whatever other tests have left it in.
    monkeypatch.setattr("hotstart.compilers.workers.errand.set_process_state", lambda _: [])
    monkeypatch.setattr("hotstart.compilers.workers.pool.Worker", InThread)
    monkeypatch.setattr(InThread, "may", threading.Event())
    made = Workers(OPTIONS, 1)
    yield made
    made.close()
    assert not any(thread.is_alive() for thread in made._threads)


@pytest.fixture
def here() -> list[str]:
    """The pieces that were compiled in the process that builds."""
    return []


@pytest.fixture
def compile_here(here: list[str]) -> Callable[[Job], Outcome]:
    def compile(job: Job) -> Outcome:
        here.append(job.piece.name)
        InThread.may.set()
        with InThread.one_at_a_time:
            return Outcome(OpByOpCompiler().compile(job), 0.5)

    return compile


def wait_until_one_runs(workers: Workers) -> None:
    until = time.monotonic() + 60
    while all(task.state == "waits" for task in workers._tasks.values()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_process_that_builds_compiles_another_job_while_it_waits(
    workers: Workers,
    jobs: list[Job],
    here: list[str],
    compile_here: Callable[[Job], Outcome],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "hotstart")
    workers.expect("native", "", jobs)
    wait_until_one_runs(workers)
    first, second, *_ = jobs
    found = workers.outcome(first, compile_here)
    assert found is not None, caplog.text
    with InThread.one_at_a_time:
        assert found.made == OpByOpCompiler().compile(first)
    assert here[:1] == [second.piece.name]
    helped = workers.outcome(second, compile_here)
    assert helped is not None
    assert helped.seconds == 0.5
    assert workers.totals().processes == 1


def test_what_no_worker_has_begun_is_left_to_the_process_that_builds(
    workers: Workers, jobs: list[Job], here: list[str], compile_here: Callable[[Job], Outcome]
) -> None:
    workers.expect("native", "", jobs)
    wait_until_one_runs(workers)
    assert workers.outcome(jobs[-1], compile_here) is None
    assert here == []
    assert workers.outcome(jobs[-1], compile_here) is None  # nor is it waited for again


def test_other_jobs_of_a_group_replace_those_that_wait(workers: Workers, jobs: list[Job]) -> None:
    workers.expect("native", "one", jobs)
    wait_until_one_runs(workers)
    workers.expect("native", "one", jobs[2:])
    assert set(workers._tasks) == {jobs[0].key, jobs[2].key, jobs[3].key}
    workers.expect("native", "another", jobs[:2])
    assert set(workers._tasks) == {job.key for job in jobs}


def test_jobs_of_another_target_wait_for_a_worker(
    workers: Workers, jobs: list[Job], here: list[str], compile_here: Callable[[Job], Outcome]
) -> None:
    workers.expect("native", "", jobs[:2])
    wait_until_one_runs(workers)
    workers.expect("x86-64-v3", "", jobs[2:])
    assert workers.outcome(jobs[0], compile_here) is not None
    assert here == [jobs[1].piece.name]


def test_jobs_that_are_not_asked_for_any_more_are_forgotten(
    workers: Workers, jobs: list[Job]
) -> None:
    workers.expect("native", "", jobs)
    workers.expect("x86-64-v3", "", ())
    assert set(workers._tasks) == {job.key for job in jobs}
    wait_until_one_runs(workers)
    workers.expect("native", "", ())
    assert set(workers._tasks) == {jobs[0].key}


def test_one_job_starts_no_worker(workers: Workers, jobs: list[Job]) -> None:
    workers.expect("native", "", jobs[:1])
    assert workers.totals().processes == 0


def test_a_mode_of_torchs_starts_no_worker(workers: Workers, jobs: list[Job]) -> None:
    with torch.device("cpu"):
        workers.expect("native", "", jobs)
    assert workers.totals().processes == 0


def test_a_small_model_starts_no_worker_before_there_are_jobs(workers: Workers) -> None:
    workers.start_early(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert workers.totals().processes == 0
    workers.start_early(nn.Sequential(*(nn.Linear(2, 2) for _ in range(20))))
    assert workers.totals().processes == 1


@pytest.mark.parametrize(
    "options",
    [
        Options(jobs=1),
        Options(jobs=4, compiler="op_by_op"),
        Options(jobs=4, tune=True),
        Options(jobs=4, prove="first"),
    ],
)
def test_some_builds_have_no_workers(options: Options) -> None:
    assert not workers_of(options).takes_jobs


def test_this_process_is_one_of_the_jobs() -> None:
    assert workers_of(Options(jobs=4)).most == 3
